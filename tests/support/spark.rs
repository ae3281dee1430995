//! Spark with Delta, Kafka and S3, as its users start it: `spark-submit` on this machine.

use super::process::{cache, installed};
use super::readers::output;
use serde_json::Value;
use std::{fs, path::Path, process::Command};

/// What a test wants to know of a table.
pub struct Asked<'a> {
    /// `delta` or `parquet`.
    pub format: &'a str,
    /// A directory, or `s3a://bucket/prefix`.
    pub path: &'a str,
    /// The numeric columns that are summed up, with commas between.
    pub sums: &'a str,
}

/// For each table `rows`, `ids` (distinct) and the sums, by the columns' names.
pub fn read_tables(asked: &[Asked<'_>], env: &[(&str, String)]) -> Vec<Value> {
    let arguments: Vec<&str> = asked.iter().flat_map(|table| [table.format, table.path, table.sums]).collect();
    marked(&submit("tests/readers/read_spark.py", &arguments, env), "TABLE ")
}

/// All rows of a table; a field that is null is not there.
pub fn read_rows(format: &str, path: &str) -> Vec<Value> {
    marked(&submit("tests/readers/read_spark.py", &[format, path, "*"], &[]), "ROW ")
}

/// What was printed behind a mark: Spark prints things of its own.
fn marked(printed: &str, mark: &str) -> Vec<Value> {
    printed.lines().filter_map(|line| line.strip_prefix(mark)).map(|row| serde_json::from_str(row).expect("JSON")).collect()
}

/// Runs a script of this repository; what it printed. `env` is that of S3 clients, for tables at `s3a://`.
pub fn submit(script: &str, arguments: &[&str], env: &[(&str, String)]) -> String {
    let work = tempfile::tempdir().expect("a temporary directory can be made");
    output(command(script, arguments, env, work.path()))
}

/// Whether [`submit`] and [`command`] find what they start.
pub fn is_installed() -> bool {
    installed("venv/bin/spark-submit").is_some() && installed("spark").is_some()
}

/// What [`submit`] runs, in the directory `work`.
pub fn command(script: &str, arguments: &[&str], env: &[(&str, String)], work: &Path) -> Command {
    assert!(is_installed(), "Spark is not installed: run tests/services/install.sh spark");
    let mut command = Command::new(cache().join("venv/bin/spark-submit"));
    let local = work.display().to_string();
    command.args(["--master", "local[2]", "--driver-memory", "2g", "--jars", &jars()]);
    let warehouse = format!("{local}/warehouse");
    let java = format!("-Dderby.system.home={local} -Duser.timezone=UTC");
    for (key, value) in [
        ("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension"),
        ("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog"),
        ("spark.databricks.delta.snapshotPartitions", "2"),
        ("spark.sql.shuffle.partitions", "2"),
        ("spark.ui.enabled", "false"),
        ("spark.driver.host", "127.0.0.1"),
        ("spark.driver.bindAddress", "127.0.0.1"),
        ("spark.sql.warehouse.dir", &warehouse),
        ("spark.driver.extraJavaOptions", &java),
        ("spark.local.dir", &local),
    ] {
        command.args(["--conf", &format!("{key}={value}")]);
    }
    if let Some((_, endpoint)) = env.iter().find(|(key, _)| *key == "AWS_ENDPOINT_URL") {
        for (key, value) in [("endpoint", &**endpoint), ("path.style.access", "true"), ("connection.ssl.enabled", "false")] {
            command.args(["--conf", &format!("spark.hadoop.fs.s3a.{key}={value}")]);
        }
        command.args(["--conf", "spark.hadoop.fs.s3a.aws.credentials.provider=software.amazon.awssdk.auth.credentials.EnvironmentVariableCredentialsProvider"]);
    }
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script)).args(arguments);
    // The Python that Spark is installed for, and no address but the loopback's.
    command.env("PYSPARK_PYTHON", cache().join("venv/bin/python")).env("SPARK_LOCAL_IP", "127.0.0.1");
    command.envs(env.iter().map(|(key, value)| (key, value))).current_dir(work);
    command
}

fn jars() -> String {
    let files = fs::read_dir(cache().join("spark")).expect("the folder of Spark's jars can be read");
    let jars = files.map(|file| file.expect("a directory entry").path().display().to_string());
    jars.filter(|path| path.ends_with(".jar")).collect::<Vec<_>>().join(",")
}
