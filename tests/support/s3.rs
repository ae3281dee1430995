//! An S3 server: MinIO, or moto where Go, which builds MinIO, is missing.

use super::process::{Service, http, installed};
use object_store::{
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
    signer::{Method, Signer},
};
use std::{io, net::SocketAddr, path::PathBuf, process::Command, thread, time::Duration};
use tempfile::TempDir;

const ACCESS_KEY: &str = "predlog";
const SECRET_KEY: &str = "predlog-secret";
const REGION: &str = "us-east-1";

/// A running S3 server on a free port, with its data in a temporary directory. It is killed when dropped.
pub struct Minio {
    program: Program,
    service: Service,
    address: SocketAddr,
    directory: TempDir,
}

#[derive(Clone)]
enum Program {
    Minio(PathBuf),
    Moto(PathBuf),
}

impl Minio {
    /// Starts it and waits until it is ready.
    pub fn start() -> Self {
        let program = Program::find();
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let log = directory.path().join("log");
        let (service, address) =
            Service::start(program.name(), &log, program.ready(), |address| program.command(&directory, address));
        let minio = Self { program, service, address, directory };
        minio.wait_ready();
        minio
    }

    /// MinIO's page on its health says 200 too early; it is ready once it knows whether a bucket is there.
    fn wait_ready(&self) {
        self.service
            .wait_until("it answers a signed request", || matches!(self.request(Method::GET, "no-such-bucket"), Ok((404, _))));
    }

    /// Kills it as `kill -9` does.
    pub fn stop(&mut self) {
        self.service.kill();
    }

    /// Starts it again after [`Minio::stop`], at the same address and with the same data.
    pub fn start_again(&mut self) {
        let (name, log) = (self.program.name(), self.directory.path().join("log"));
        let command = self.program.command(&self.directory, self.address);
        self.service = Service::start_at(name, &log, self.program.ready(), self.address, command);
        self.wait_ready();
    }

    /// Whether its data outlives [`Minio::stop`]: moto keeps it in memory.
    pub fn keeps_data(&self) -> bool {
        matches!(self.program, Program::Minio(_))
    }

    /// Where it listens, for a proxy in front of it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://` and the address.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The access key.
    pub fn access_key(&self) -> &'static str {
        ACCESS_KEY
    }

    /// The secret key.
    pub fn secret_key(&self) -> &'static str {
        SECRET_KEY
    }

    /// The environment in which S3 clients find it, for a child process.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        s3_env(&self.endpoint())
    }

    /// A client of `bucket`.
    pub fn store(&self, bucket: &str) -> AmazonS3 {
        self.store_through(&self.endpoint(), bucket)
    }

    /// A client of `bucket` by way of a proxy that listens at `endpoint`.
    pub fn store_through(&self, endpoint: &str, bucket: &str) -> AmazonS3 {
        s3_builder(endpoint, bucket).build().expect("the settings of the S3 client are complete")
    }

    /// Makes a bucket.
    pub fn create_bucket(&self, name: &str) {
        let (status, answer) = self.request(Method::PUT, name).expect("the S3 server answers");
        assert_eq!(status, 200, "bucket {name} could not be made: {answer}");
    }

    /// A signed request on a bucket itself, which `object_store` has no call for.
    fn request(&self, method: Method, bucket: &str) -> io::Result<(u16, String)> {
        let store = self.store(bucket);
        let name = method.to_string();
        // The caller may be in a runtime of its own, and one cannot be started within another.
        let signed = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            // The URL of the empty key is the bucket's.
            runtime.block_on(store.signed_url(method, &Path::default(), Duration::from_secs(60)))
        });
        let url = signed.join().expect("signing does not panic").expect("static keys sign");
        let target = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        http(&name, self.address, &target, "")
    }
}

/// The environment in which S3 clients find the server at `endpoint`.
pub fn s3_env(endpoint: &str) -> Vec<(&'static str, String)> {
    let pairs = [
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_REGION", REGION),
        ("AWS_ALLOW_HTTP", "true"),
        // The SDKs would ask a cloud's metadata address for what they miss.
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    pairs.map(|(name, value)| (name, value.to_owned())).to_vec()
}

/// The settings of a client of `bucket`, to be added to.
pub fn s3_builder(endpoint: &str, bucket: &str) -> AmazonS3Builder {
    AmazonS3Builder::new()
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .with_bucket_name(bucket)
        .with_region(REGION)
        .with_access_key_id(ACCESS_KEY)
        .with_secret_access_key(SECRET_KEY)
}

impl Program {
    fn find() -> Self {
        let minio = installed("bin/minio").map(Self::Minio);
        let found = minio.or_else(|| installed("venv/bin/moto_server").map(Self::Moto));
        found.expect("neither MinIO nor moto is installed: run tests/services/install.sh")
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Minio(_) => "MinIO",
            Self::Moto(_) => "moto",
        }
    }

    fn ready(&self) -> &'static str {
        match self {
            Self::Minio(_) => "/minio/health/ready",
            Self::Moto(_) => "/moto-api/data.json",
        }
    }

    fn command(&self, directory: &TempDir, address: SocketAddr) -> Command {
        let data = directory.path().join("data");
        match self {
            Self::Minio(program) => {
                let mut command = Command::new(program);
                command.arg("server").arg(data).arg("--address").arg(address.to_string());
                command.arg("--certs-dir").arg(directory.path().join("certs"));
                command.env("MINIO_ROOT_USER", ACCESS_KEY).env("MINIO_ROOT_PASSWORD", SECRET_KEY);
                // No console, and no questions to its maker about updates or by way of telemetry.
                command.env("MINIO_BROWSER", "off").env("MINIO_UPDATE", "off").env("MINIO_CALLHOME_ENABLE", "off");
                command
            }
            Self::Moto(program) => {
                let mut command = Command::new(program);
                command.args(["-H", "127.0.0.1", "-p", &address.port().to_string()]);
                command
            }
        }
    }
}
