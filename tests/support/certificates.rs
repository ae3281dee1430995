//! Certificates for one server and its clients, made by openssl.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What openssl would else take from the machine's own configuration.
const EXTENSIONS: &str = "\
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = IP:127.0.0.1, DNS:localhost
[client]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = clientAuth
";

/// PEM files; keys are PKCS#8 without a password.
pub struct Certificates {
    directory: PathBuf,
}

impl Certificates {
    /// Makes them in `directory`; they are valid for two days.
    pub fn make(directory: &Path) -> Self {
        let this = Self { directory: directory.to_path_buf() };
        fs::create_dir(directory).expect("the directory of the certificates is new");
        fs::write(this.path("openssl.cnf"), EXTENSIONS).expect("a file can be written");
        this.request("ca", "/CN=predlog test CA", "ca", None);
        this.request("other-ca", "/CN=another CA", "ca", None);
        this.request("server", "/CN=localhost", "server", Some("ca"));
        this.request("other-server", "/CN=localhost", "server", Some("other-ca"));
        this.request("client", "/CN=predlog", "client", Some("ca"));
        this.request("other-client", "/CN=predlog", "client", Some("other-ca"));
        // Kafka reads a PEM keystore from one file.
        let keystore = [".key", ".pem"].map(|end| fs::read(this.path(&format!("server{end}"))).expect("openssl has written it"));
        fs::write(this.path("keystore.pem"), keystore.concat()).expect("a file can be written");
        this
    }

    /// The certificate of the CA that signed the server's and the client's.
    pub fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// The certificate of a CA that signed neither.
    pub fn other_ca(&self) -> PathBuf {
        self.path("other-ca.pem")
    }

    /// A client's certificate, for `CN=predlog`.
    pub fn client_certificate(&self) -> PathBuf {
        self.path("client.pem")
    }

    /// The key of [`Certificates::client_certificate`].
    pub fn client_key(&self) -> PathBuf {
        self.path("client.key")
    }

    /// The certificate and the key of `server` or `client`, or of one that the other CA signed: `other-server`, `other-client`.
    pub fn pair(&self, name: &str) -> (PathBuf, PathBuf) {
        (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")))
    }

    /// The server's key and certificate in one file.
    pub fn keystore(&self) -> PathBuf {
        self.path("keystore.pem")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Makes `name`.key and `name`.pem, signed by itself or by `issuer`.
    fn request(&self, name: &str, subject: &str, extensions: &str, issuer: Option<&str>) {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-config", "openssl.cnf", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        openssl.args(["-nodes", "-days", "2", "-subj", subject, "-extensions", extensions]);
        openssl.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")]);
        if let Some(issuer) = issuer {
            openssl.args(["-CA", &format!("{issuer}.pem"), "-CAkey", &format!("{issuer}.key")]);
        }
        let done = openssl.current_dir(&self.directory).output();
        let done = done.unwrap_or_else(|error| panic!("openssl does not start: {error}; install OpenSSL 3"));
        assert!(done.status.success(), "openssl makes no {name}.pem: {}", String::from_utf8_lossy(&done.stderr));
    }
}
