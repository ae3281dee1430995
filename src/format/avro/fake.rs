//! A Schema Registry in a thread, which can be told to misbehave.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use serde_json::{Value, json};

/// How it answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Mood {
    #[default]
    Well,
    /// New schemas with this status and code.
    Refuses(u16, u32),
    /// Never.
    Hangs,
    /// Everything with this status and text.
    Fails(u16, &'static str),
    /// As if another process registered this schema between a question and a registration.
    Races(String),
}

#[derive(Default)]
pub(super) struct State {
    pub(super) mood: Mood,
    pub(super) subjects: BTreeMap<String, Vec<(u32, String)>>,
    /// Method and path of each request, and its `Authorization`.
    pub(super) requests: Vec<(String, Option<String>)>,
    /// Connections that get no answer.
    hung: Vec<TcpStream>,
    stopped: bool,
}

pub(super) struct Fake {
    pub(super) address: SocketAddr,
    pub(super) state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    pub(super) fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), State::default())
    }

    /// With what another had.
    pub(super) fn start_at(address: SocketAddr, state: State) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { stopped: false, ..state }));
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.lock().stopped {
                    return;
                }
                answer(stream.unwrap(), &shared);
            }
        });
        Fake { address, state, thread: Some(thread) }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops it. What it has can be given to the next.
    pub(super) fn stop(mut self) -> (SocketAddr, State) {
        self.end();
        (self.address, std::mem::take(&mut self.state.lock()))
    }

    fn end(&mut self) {
        self.state.lock().stopped = true;
        if let Some(thread) = self.thread.take() {
            // Its loop looks at the flag when somebody connects.
            let _ = TcpStream::connect(self.address);
            thread.join().unwrap();
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.end();
    }
}

fn answer(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    let (mut request, mut length, mut authorization) = (String::new(), 0, None);
    if reader.read_line(&mut request).unwrap_or(0) == 0 {
        return;
    }
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        match header.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => authorization = Some(value.to_owned()),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let mut stream = reader.into_inner();
    let mut state = state.lock();
    let request = request.trim_end_matches(" HTTP/1.1\r\n").to_owned();
    state.requests.push((request.clone(), authorization));
    let (status, body) = match state.mood.clone() {
        Mood::Hangs => return state.hung.push(stream),
        Mood::Fails(status, text) => (status, text.to_owned()),
        mood => {
            let (status, body) = state.answer(&request, &body, &mood);
            (status, body.to_string())
        }
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    // A client that has given up is no error of the registry.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
}

impl State {
    fn answer(&mut self, request: &str, body: &[u8], mood: &Mood) -> (u16, Value) {
        let (method, path) = request.split_once(' ').unwrap();
        let subject = path.strip_prefix("/subjects/").unwrap().split('/').next().unwrap();
        if method == "GET" {
            return match self.subjects.get(subject).and_then(|versions| versions.last()) {
                Some((id, schema)) => (200, json!({"subject": subject, "id": id, "version": 1, "schema": schema})),
                None => (404, json!({"error_code": 40401, "message": "Subject not found."})),
            };
        }
        let schema = serde_json::from_slice::<Value>(body).unwrap()["schema"].as_str().unwrap().to_owned();
        match mood {
            Mood::Refuses(status, code) => return (*status, json!({"error_code": code, "message": "not this one"})),
            Mood::Races(theirs) => {
                let theirs = theirs.clone();
                self.mood = Mood::Well;
                self.add(subject, theirs);
                return (409, json!({"error_code": 409, "message": "incompatible"}));
            }
            _ => {}
        }
        (200, json!({"id": self.add(subject, schema)}))
    }

    /// Registers a schema, as somebody does.
    pub(super) fn add(&mut self, subject: &str, schema: String) -> u32 {
        let known = self.subjects.values().flatten().find(|(_, known)| *known == schema).map(|(id, _)| *id);
        let id = known.unwrap_or_else(|| 100 + self.subjects.values().map(Vec::len).sum::<usize>() as u32);
        self.subjects.entry(subject.to_owned()).or_default().push((id, schema));
        id
    }
}
