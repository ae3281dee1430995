//! An operator, an account and a user, as `nsc` makes them.
//!
//! The claims are those of <https://github.com/nats-io/jwt>, version 2; -1 is "no limit".

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

/// Who may say who may connect.
pub struct Operator {
    key: KeyPair,
    system: KeyPair,
    account: KeyPair,
    user: KeyPair,
}

impl Operator {
    pub fn new() -> Self {
        let (key, system) = (KeyPair::new_operator(), KeyPair::new_account());
        Operator { key, system, account: KeyPair::new_account(), user: KeyPair::new_user() }
    }

    /// Lines of a server's configuration that knows the account, or does not.
    pub fn server(&self, knows: bool) -> String {
        let limits = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1});
        let mut store = limits.clone();
        for key in ["mem_storage", "disk_storage", "streams", "consumer"] {
            store[key] = json!(-1);
        }
        let operator = signed(&self.key, &self.key, &json!({"type": "operator", "version": 2}), None);
        let account = |account: &KeyPair, limits: &Value| {
            let claims = json!({"type": "account", "version": 2, "limits": limits});
            format!("{}: {}", account.public_key(), signed(&self.key, account, &claims, None))
        };
        let mut accounts = vec![account(&self.system, &limits)];
        accounts.extend(knows.then(|| account(&self.account, &store)));
        let (system, accounts) = (self.system.public_key(), accounts.join("\n"));
        format!("operator: {operator}\nsystem_account: {system}\nresolver: MEMORY\nresolver_preload: {{\n{accounts}\n}}\n")
    }

    /// The user's `.creds` file; `expires` in seconds since 1970.
    pub fn credentials(&self, expires: Option<u64>) -> String {
        let claims = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}});
        let jwt = signed(&self.account, &self.user, &claims, expires);
        let seed = self.seed();
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             ************************* IMPORTANT *************************\nNKEYs are sensitive and should be treated as secrets.\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }

    /// The user's secret.
    pub fn seed(&self) -> String {
        self.user.seed().expect("it was made with its seed")
    }
}

fn signed(issuer: &KeyPair, subject: &KeyPair, claims: &Value, expires: Option<u64>) -> String {
    let mut body = json!({"jti": "predlog", "iat": 1_700_000_000, "iss": issuer.public_key(), "name": "predlog"});
    body["sub"] = subject.public_key().into();
    body["nats"] = claims.clone();
    if let Some(expires) = expires {
        body["exp"] = expires.into();
    }
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let text = [header, body].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature = issuer.sign(text.as_bytes()).expect("it has its seed");
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}
