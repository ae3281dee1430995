//! What a call of `log()` costs the thread that serves: `cargo bench --bench log_call`.
//!
//! A prediction of 12 mixed features, paced at 100,000 a second and flat out, beside: copying the encoded bytes alone (the floor), serialising
//! alone, tracing-appender's non-blocking writer with the same JSON, and a bounded crossbeam channel. All in turn in one run, medians over passes.

mod support;

use predlog::sink::discard::DiscardSink;
use predlog::{Durability, Guard, Logger, LoggerSettings, Prediction};
use serde::Serialize;
use std::hint::black_box;
use std::io::Write;
use std::time::Duration;
use support::{Features, Latency, Output, features, flat_out, median, paced};

const RATE: u64 = 100_000;
const PACED: Duration = Duration::from_secs(2);
const FLAT_OUT: u64 = 1_000_000;
const PASSES: usize = 5;

/// The same record as a struct, for those who serialise it themselves.
#[derive(Serialize)]
struct Record<'a> {
    timestamp: &'a str,
    model_name: &'a str,
    id: &'a str,
    model_version: &'a str,
    inputs: &'a Features,
    outputs: &'a Output,
}

fn serialise(out: &mut Vec<u8>, inputs: &Features, outputs: &Output) {
    out.clear();
    let record = Record {
        timestamp: "2026-11-23T03:34:18.123456Z",
        model_name: "churn",
        id: "0199aa00-0000-7000-8000-000000000000",
        model_version: "v2",
        inputs,
        outputs,
    };
    serde_json::to_writer(&mut *out, &record).expect("it serialises");
    out.push(b'\n');
}

type Call = Box<dyn FnMut(&(Features, Output))>;

/// A way to hand a prediction over, and what it holds open meanwhile.
struct Way {
    name: &'static str,
    call: Call,
    _open: Box<dyn std::any::Any>,
}

fn predlog(name: &'static str, durability: Durability, dir: &std::path::Path) -> Way {
    let settings = LoggerSettings { durability, ..LoggerSettings::default() };
    let (logger, guard): (Logger, Guard) = Logger::builder(settings)
        .dir(dir)
        .sink(Box::new(DiscardSink::default()))
        .open()
        .expect("a logger in a temporary directory");
    let call = move |(inputs, outputs): &(Features, Output)| {
        let _ = black_box(logger.log(Prediction::new("churn", "v2", inputs, outputs)));
    };
    Way { name, call: Box::new(call), _open: Box::new(guard) }
}

fn copy_alone() -> Way {
    let mut line = Vec::new();
    let (inputs, outputs) = features(1);
    serialise(&mut line, &inputs, &outputs);
    let mut to = vec![0u8; 8 << 20];
    let mut at = 0;
    let call = move |_: &(Features, Output)| {
        if at + line.len() > to.len() {
            at = 0;
        }
        to[at..at + line.len()].copy_from_slice(black_box(&line));
        at += line.len();
        black_box(&to[at - 1]);
    };
    Way { name: "copy the bytes alone", call: Box::new(call), _open: Box::new(()) }
}

fn serialise_alone() -> Way {
    let mut out = Vec::with_capacity(1024);
    let call = move |(inputs, outputs): &(Features, Output)| {
        serialise(&mut out, inputs, outputs);
        black_box(&out);
    };
    Way { name: "serialise alone", call: Box::new(call), _open: Box::new(()) }
}

fn tracing_appender() -> Way {
    let (mut writer, guard) = tracing_appender::non_blocking(std::io::sink());
    let mut out = Vec::with_capacity(1024);
    let call = move |(inputs, outputs): &(Features, Output)| {
        serialise(&mut out, inputs, outputs);
        writer.write_all(&out).expect("the channel is there");
    };
    Way { name: "tracing-appender", call: Box::new(call), _open: Box::new(guard) }
}

fn crossbeam() -> Way {
    let (sender, receiver) = crossbeam_channel::bounded::<Vec<u8>>(100_000);
    let consumer = std::thread::spawn(move || receiver.iter().map(|line| line.len()).sum::<usize>());
    let call = move |(inputs, outputs): &(Features, Output)| {
        let mut out = Vec::with_capacity(512);
        serialise(&mut out, inputs, outputs);
        let _ = black_box(sender.try_send(out));
    };
    Way { name: "crossbeam channel", call: Box::new(call), _open: Box::new(consumer) }
}

fn main() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let predictions: Vec<_> = (0..1024).map(features).collect();
    let open: [&dyn Fn() -> Way; 6] = [
        &copy_alone,
        &serialise_alone,
        &|| predlog("predlog, memory", Durability::Memory, dir.path()),
        &|| predlog("predlog, process", Durability::Process, dir.path()),
        &crossbeam,
        &tracing_appender,
    ];
    let mut names = Vec::new();
    let mut flat: Vec<Vec<f64>> = vec![Vec::new(); open.len()];
    let mut latencies: Vec<Vec<Latency>> = (0..open.len()).map(|_| Vec::new()).collect();
    for pass in 0..PASSES {
        eprintln!("pass {} of {PASSES}", pass + 1);
        for (at, open) in open.iter().enumerate() {
            let mut way = open();
            if pass == 0 {
                names.push(way.name);
            }
            let prediction = |n: u64| &predictions[(n % 1024) as usize];
            (0..50_000).for_each(|n| (way.call)(prediction(n)));
            latencies[at].push(paced(RATE, PACED, |n| (way.call)(prediction(n))));
            flat[at].push(flat_out(FLAT_OUT, |n| (way.call)(prediction(n))));
        }
    }
    print_table(&names, &flat, &latencies);
}

fn print_table(names: &[&str], flat: &[Vec<f64>], latencies: &[Vec<Latency>]) {
    let of = |at: usize, value: &dyn Fn(&Latency) -> f64| median(latencies[at].iter().map(value).collect());
    println!("\nlog_call: ns a call, one thread; paced at {RATE}/s, then flat out; medians of {PASSES} passes");
    println!(
        "{:<22} {:>7} {:>7} {:>7} {:>8} {:>8} {:>9} | {:>9}",
        "", "mean", "p50", "p99", "p99.9", "p99.99", "max", "flat out"
    );
    for (at, name) in names.iter().enumerate() {
        let quantile = |q: f64| of(at, &|latency| latency.quantile(q) as f64);
        println!(
            "{name:<22} {:>7.0} {:>7.0} {:>7.0} {:>8.0} {:>8.0} {:>9.0} | {:>9.0}",
            of(at, &Latency::mean),
            quantile(0.5),
            quantile(0.99),
            quantile(0.999),
            quantile(0.9999),
            of(at, &|latency| latency.max() as f64),
            median(flat[at].clone()),
        );
    }
    let ratio = |what: &str, a: f64, b: f64| println!("{what}: {:.2}", a / b);
    ratio("predlog process / serialise alone, mean flat out", median(flat[3].clone()), median(flat[1].clone()));
    ratio("predlog process / serialise alone, mean paced", of(3, &Latency::mean), of(1, &Latency::mean));
    ratio(
        "predlog process / copy alone, p99.9 paced",
        of(3, &|l| l.quantile(0.999) as f64),
        of(0, &|l| l.quantile(0.999) as f64),
    );
    ratio("predlog process / memory, mean flat out", median(flat[3].clone()), median(flat[2].clone()));
}
