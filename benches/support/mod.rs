//! What the benches share: a prediction of 12 mixed features, a latency histogram, CPU time, tables.

#![allow(dead_code, reason = "each bench uses a part of it")]

use hdrhistogram::Histogram;
use serde::Serialize;
use std::time::{Duration, Instant};

/// 12 mixed features: about 360 bytes as a whole line.
#[derive(Serialize, Clone)]
pub struct Features {
    pub age: u32,
    pub income: f64,
    pub balance: f64,
    pub tenure_months: u16,
    pub country: &'static str,
    pub segment: &'static str,
    pub is_active: bool,
    pub logins_30d: u32,
    pub avg_session: f32,
    pub last_amount: f64,
    pub device: &'static str,
    pub risk: f64,
}

#[derive(Serialize, Clone)]
pub struct Output {
    pub score: f64,
    pub label: &'static str,
}

/// The `n`-th prediction: values differ, shapes do not.
pub fn features(n: u64) -> (Features, Output) {
    let random = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 11;
    let unit = random as f64 / (1u64 << 53) as f64;
    let features = Features {
        age: 18 + (random % 70) as u32,
        income: (unit * 1e7).round() / 100.0,
        balance: unit * 5_000.0 - 1_000.0,
        tenure_months: (random % 240) as u16,
        country: ["SE", "DE", "FR", "IT", "PL"][(random % 5) as usize],
        segment: ["retail", "private", "business"][(random % 3) as usize],
        is_active: random.is_multiple_of(2),
        logins_30d: (random % 90) as u32,
        avg_session: (unit * 600.0) as f32,
        last_amount: (unit * 99_999.0).round() / 100.0,
        device: ["ios", "android", "web"][(random / 7 % 3) as usize],
        risk: unit,
    };
    (features, Output { score: 1.0 - unit, label: if unit > 0.5 { "stay" } else { "churn" } })
}

/// Nanoseconds of single calls.
pub struct Latency {
    histogram: Histogram<u64>,
}

impl Latency {
    pub fn new() -> Self {
        // 1 ns to 10 s, three digits: these bounds are always valid.
        Latency { histogram: Histogram::new_with_bounds(1, 10_000_000_000, 3).expect("valid bounds") }
    }

    pub fn record(&mut self, elapsed: Duration) {
        self.histogram.saturating_record(elapsed.as_nanos() as u64);
    }

    pub fn quantile(&self, quantile: f64) -> u64 {
        self.histogram.value_at_quantile(quantile)
    }

    pub fn mean(&self) -> f64 {
        self.histogram.mean()
    }

    pub fn max(&self) -> u64 {
        self.histogram.max()
    }
}

/// Calls `call(n)` at `rate` a second for `duration`, and times each call. Waits by spinning: a sleep is coarser than the calls.
pub fn paced(rate: u64, duration: Duration, mut call: impl FnMut(u64)) -> Latency {
    let mut latency = Latency::new();
    let step = Duration::from_nanos(1_000_000_000 / rate);
    let start = Instant::now();
    let mut next = start;
    let mut n = 0;
    while next - start < duration {
        while Instant::now() < next {
            std::hint::spin_loop();
        }
        let begin = Instant::now();
        call(n);
        latency.record(begin.elapsed());
        n += 1;
        next += step;
    }
    latency
}

/// The mean nanoseconds of a call, flat out.
pub fn flat_out(calls: u64, mut call: impl FnMut(u64)) -> f64 {
    let start = Instant::now();
    (0..calls).for_each(&mut call);
    start.elapsed().as_nanos() as f64 / calls as f64
}

/// CPU seconds of this process so far, all threads.
pub fn cpu_seconds() -> f64 {
    cpu_seconds_of("self")
}

/// As [`cpu_seconds`], of the process with this id.
pub fn cpu_seconds_of(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks: f64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}

/// The largest resident memory of this process so far, in MiB.
pub fn peak_rss_mib() -> f64 {
    peak_rss_mib_of("self")
}

/// As [`peak_rss_mib`], of the process with this id.
pub fn peak_rss_mib_of(process: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(f64::NAN) / 1024.0
}

/// The median.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
