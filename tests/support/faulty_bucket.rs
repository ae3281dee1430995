//! A bucket whose server can be killed, slowed, cut off, or made to answer errors.

use super::fault_proxy::FaultProxy;
use super::process::wait_until;
use super::s3::Minio;
use super::toxiproxy::{Proxy, Toxiproxy};
use serde_json::json;
use std::time::Duration;

/// The server, behind what slows it down and what answers in its place.
pub struct FaultyBucket {
    pub minio: Minio,
    _toxiproxy: Toxiproxy,
    line: Proxy,
    answers: FaultProxy,
}

impl FaultyBucket {
    pub fn start(bucket: &str) -> Self {
        let minio = Minio::start();
        minio.create_bucket(bucket);
        let toxiproxy = Toxiproxy::start();
        let line = toxiproxy.proxy(minio.address());
        let answers = FaultProxy::start(line.address());
        FaultyBucket { minio, _toxiproxy: toxiproxy, line, answers }
    }

    /// Where clients find it.
    pub fn endpoint(&self) -> String {
        self.answers.endpoint()
    }

    /// Another fault for each kill.
    pub fn next(&mut self, kill: u64) {
        match kill % 6 {
            0 => self.answers.answer_with(503),
            1 => self.answers.answer_with(500),
            // Carried out, and then disowned: the client must find that it is stored.
            2 => self.answers.forward_then_answer_with(500),
            3 => self.minio.stop(),
            4 => {
                for stream in ["upstream", "downstream"] {
                    self.line.add_toxic(&json!({"type": "bandwidth", "stream": stream, "attributes": {"rate": 1}}));
                }
            }
            _ => self.line.disable(),
        }
    }

    /// Returns once the fault has been met, where that can be counted.
    pub fn wait_until_met(&self, kill: u64) {
        let before = self.answers.faults();
        if kill % 6 <= 2 {
            wait_until("an upload meets the fault", Duration::from_secs(30), || self.answers.faults() > before);
        }
    }

    /// Takes the fault of this kill back.
    pub fn heal(&mut self, kill: u64) {
        match kill % 6 {
            0..=2 => self.answers.pass(),
            3 => self.minio.start_again(),
            4 => self.line.remove_toxics(),
            _ => self.line.enable(),
        }
    }
}
