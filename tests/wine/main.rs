//! The axum example on real data: each of the data set's wines is predicted over HTTP, and every float is exact in SQLite, in the Parquet files and in the
//! bucket, as pyarrow, DuckDB and Polars read them.

mod streams;
#[path = "../support/mod.rs"]
mod support;

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use support::readers::{READERS, ReadOptions, read_table};
use support::s3::Minio;

/// The data set's columns, as the example names them.
const FEATURES: [&str; 11] = [
    "fixed_acidity",
    "volatile_acidity",
    "citric_acid",
    "residual_sugar",
    "chlorides",
    "free_sulfur_dioxide",
    "total_sulfur_dioxide",
    "density",
    "ph",
    "sulphates",
    "alcohol",
];
const BUCKET: &str = "wines";

/// By id: the inputs in the order of [`FEATURES`], and the predicted quality, all as bits.
type Table = BTreeMap<String, (Vec<u64>, u64)>;

/// An example that cargo built beside this test.
fn example(name: &str) -> Command {
    let this = std::env::current_exe().expect("this program");
    let examples = this.parent().and_then(Path::parent).expect("target/<profile>/deps").join("examples");
    Command::new(examples.join(name))
}

struct Server {
    child: Child,
    url: String,
    output: BufReader<std::process::ChildStdout>,
}

impl Server {
    /// `config` is one of the samples in `config/`, and `env` what a machine of its own would have in a copy.
    fn start(config: &str, env: &[(&str, &str)]) -> Self {
        let mut command = example("axum_server");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(config)).stdout(Stdio::piped());
        command.envs(env.iter().copied());
        let mut child = command.spawn().expect("the example starts");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        let url = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}")).to_owned();
        Server { child, url, output }
    }

    /// SIGTERM, and the report that it prints.
    fn stop(self) -> Value {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is there");
        let Server { mut child, output, .. } = self;
        let report = output.lines().map(|line| line.expect("a line")).last().expect("a report");
        assert!(child.wait().expect("its end").success());
        serde_json::from_str(&report).expect("the report is JSON")
    }
}

fn expected() -> BTreeMap<String, Vec<u64>> {
    let wines = linfa_datasets::winequality();
    let rows = wines.records().rows().into_iter().map(|row| row.iter().map(|value| value.to_bits()).collect());
    rows.enumerate().map(|(index, row)| (format!("wine-{index}"), row)).collect()
}

fn bits(value: &Value) -> u64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number")).to_bits()
}

fn by_reader(reader: &str, table: &str, env: &[(&'static str, String)]) -> Table {
    let rows = read_table(reader, table, &ReadOptions { under: String::new(), env: env.to_vec() });
    let row = |row: &Value| {
        assert_eq!((&row["model_name"], &row["status_code"]), (&Value::from("wine-quality"), &Value::from(200)), "{reader}");
        let inputs = FEATURES.iter().map(|name| bits(&row["inputs"][name])).collect();
        (row["id"].as_str().expect("an id").to_owned(), (inputs, bits(&row["outputs"]["quality"])))
    };
    let table: Table = rows.iter().map(row).collect();
    assert_eq!(table.len(), rows.len(), "{reader}: no id twice");
    table
}

fn by_sqlite(dir: &Path) -> Table {
    let database = rusqlite::Connection::open(dir.join("predictions.db")).expect("the database opens");
    // The view lifts the features to columns, as a person would ask for them.
    let columns = FEATURES.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let sql = format!("SELECT id, quality, {columns} FROM \"model_wine-quality\"");
    let mut query = database.prepare(&sql).expect("the view is there");
    let rows = query.query_map([], |row| {
        let inputs = (0..FEATURES.len()).map(|at| row.get::<_, f64>(at + 2).map(f64::to_bits)).collect::<Result<_, _>>()?;
        Ok((row.get::<_, String>(0)?, (inputs, row.get::<_, f64>(1)?.to_bits())))
    });
    rows.expect("rows").collect::<Result<_, _>>().expect("rows")
}

fn assert_exact(what: &str, table: &Table) {
    let expected = expected();
    assert_eq!(table.len(), expected.len(), "{what}: rows");
    for (id, inputs) in &expected {
        assert_eq!(&table[id].0, inputs, "{what}: the inputs of {id}");
    }
}

/// Predicts every wine by the example, each of which is logged and delivered.
fn replay(config: &str, env: &[(&str, &str)]) {
    let server = Server::start(config, env);
    let mut replay = example("replay_wine");
    replay.arg(&server.url);
    let replayed = support::readers::output(replay);
    assert!(replayed.contains("replayed 1599 wines"), "{replayed}");
    let report = server.stop();
    let counts = (&report["accepted"], &report["delivered"], &report["dropped"]);
    assert_eq!(counts, (&1599.into(), &1599.into(), &serde_json::json!({})), "{config}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn every_wine_is_exact_in_both_stores_and_in_the_bucket() {
    let minio = Minio::start();
    minio.create_bucket(BUCKET);
    let work = tempfile::tempdir().expect("a temporary directory");
    let dirs: BTreeMap<&str, PathBuf> = ["sqlite", "parquet"].map(|store| (store, work.path().join(store))).into();
    for (store, dir) in &dirs {
        let (url, endpoint, keys) = (format!("s3://{BUCKET}/{store}"), minio.endpoint(), minio.env());
        let mut env = vec![("PREDLOG_DIRECT__STORE", *store), ("PREDLOG_DIRECT__DIR", text(dir))];
        env.extend([("PREDLOG_UPLOAD__URL", &*url), ("PREDLOG_UPLOAD__ENDPOINT", &*endpoint)]);
        env.extend(keys.iter().map(|(key, value)| (*key, &**value)));
        replay("simple.toml", &env);
    }
    let sqlite = by_sqlite(&dirs["sqlite"]);
    assert_exact("sqlite", &sqlite);
    let predictions = dirs["parquet"].join("predictions");
    for reader in READERS {
        let local = by_reader(reader, predictions.to_str().expect("UTF-8"), &[]);
        assert_exact(&format!("parquet in the directory, by {reader}"), &local);
        // One model on the same data: what was predicted is the same in both runs, to the bit.
        assert_eq!(local, sqlite, "{reader}");
        for store in dirs.keys() {
            let bucket = by_reader(reader, &format!("s3://{BUCKET}/{store}/predictions"), &minio.env());
            assert_exact(&format!("the bucket's {store}, by {reader}"), &bucket);
            assert_eq!(bucket, sqlite, "{reader}, {store}");
        }
    }
}
