//! Who we are to the servers.

use super::settings::{AuthSettings, Secret};
use crate::sink::broker::settings::secret;
use async_nats::Auth;
use nkeys::KeyPair;
use std::path::Path;

/// What `[nats.auth]` and its files say. It has secrets, and no `Debug`.
pub(super) enum Login {
    Anonymous,
    Token(Secret),
    Password(String, Secret),
    /// The key pair signs what the server asks; a user that an account has made shows its JWT too.
    Key(Box<KeyPair>, Option<String>),
}

impl Login {
    /// Each connection reads it again: a file that is replaced needs no restart.
    ///
    /// # Errors
    /// A file that cannot be read, or is no such file, by key and path.
    pub(super) fn read(auth: &AuthSettings) -> Result<Self, String> {
        if let Some(path) = &auth.credentials_file {
            return credentials(path).map_err(|why| format!("nats.auth.credentials_file={}: {why}", path.display()));
        }
        if let Some(username) = &auth.username {
            let password = secret("nats.auth.password_file", auth.password.as_ref(), auth.password_file.as_deref())?;
            return Ok(Login::Password(username.clone(), password.unwrap_or_else(|| Secret::new(""))));
        }
        if let Some(token) = secret("nats.auth.token_file", auth.token.as_ref(), auth.token_file.as_deref())? {
            return Ok(Login::Token(token));
        }
        match secret("nats.auth.nkey_seed_file", auth.nkey_seed.as_ref(), auth.nkey_seed_file.as_deref())? {
            Some(seed) => key_pair(seed.reveal()).map(|key| Login::Key(Box::new(key), None)).map_err(|why| {
                let file = auth.nkey_seed_file.as_ref().map(|path| format!("_file={}", path.display()));
                format!("nats.auth.nkey_seed{}: {why}", file.unwrap_or_default())
            }),
            None => Ok(Login::Anonymous),
        }
    }

    /// The answer to a server's question.
    ///
    /// # Errors
    /// The key does not sign.
    pub(super) fn answer(self, nonce: &[u8]) -> Result<Auth, nkeys::error::Error> {
        let mut auth = Auth::new();
        match self {
            Login::Anonymous => {}
            Login::Token(token) => auth.token = Some(token.reveal().to_owned()),
            Login::Password(username, password) => {
                (auth.username, auth.password) = (Some(username), Some(password.reveal().to_owned()));
            }
            Login::Key(key, jwt) => {
                auth.signature = Some(key.sign(nonce)?);
                // The JWT names the key.
                auth.nkey = jwt.is_none().then(|| key.public_key());
                auth.jwt = jwt;
            }
        }
        Ok(auth)
    }
}

fn credentials(path: &Path) -> Result<Login, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    let (Some(jwt), Some(seed)) = (block(&text, "NATS USER JWT"), block(&text, "USER NKEY SEED")) else {
        return Err("expected a .creds file: a NATS USER JWT and a USER NKEY SEED, each between lines of dashes".to_owned());
    };
    key_pair(seed).map(|key| Login::Key(Box::new(key), Some(jwt.to_owned())))
}

/// The line after `-----BEGIN <name>-----`.
fn block<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| line.starts_with("---") && line.contains("BEGIN") && line.contains(name))?;
    lines.next().filter(|line| !line.is_empty() && !line.starts_with('-'))
}

/// The error does not have the seed in it.
fn key_pair(seed: &str) -> Result<KeyPair, String> {
    let pair = KeyPair::from_seed(seed.trim()).ok().filter(|_| seed.trim().starts_with("SU"));
    pair.ok_or_else(|| "expected a user's seed, which begins with SU, as nsc or nk made it".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(change: impl FnOnce(&mut AuthSettings)) -> Result<Login, String> {
        let mut auth = AuthSettings::default();
        change(&mut auth);
        Login::read(&auth)
    }

    #[test]
    fn a_credentials_file_has_a_jwt_and_a_seed() {
        let (dir, user) = (tempfile::tempdir().unwrap(), KeyPair::new_user());
        let (path, seed) = (dir.path().join("a.creds"), user.seed().unwrap());
        let creds = |jwt: &str, seed: &str| {
            let text = format!(
                "-----BEGIN NATS USER JWT-----\r\n{jwt}\r\n------END NATS USER JWT------\r\n\r\n*** IMPORTANT ***\r\n\r\n\
                 -----BEGIN USER NKEY SEED-----\r\n{seed}\r\n------END USER NKEY SEED------\r\n"
            );
            std::fs::write(&path, text).unwrap();
            read(|auth| auth.credentials_file = Some(path.clone()))
        };
        let auth = creds("a.b.c", &seed).ok().unwrap().answer(b"nonce").unwrap();
        assert_eq!((auth.jwt.as_deref(), auth.nkey), (Some("a.b.c"), None));
        user.verify(b"nonce", &auth.signature.unwrap()).unwrap();
        for (jwt, broken) in [("", &*seed), ("a.b.c", ""), ("a.b.c", &seed[1..])] {
            let why = creds(jwt, broken).err().unwrap();
            assert!(why.starts_with("nats.auth.credentials_file=/") && why.contains("expected"), "{why}");
            assert!(broken.is_empty() || !why.contains(broken), "{why}");
        }
    }

    #[test]
    fn a_seed_is_a_users() {
        let user = KeyPair::new_user();
        let auth = read(|auth| auth.nkey_seed = user.seed().ok().map(Secret::new)).ok().unwrap().answer(b"nonce").unwrap();
        assert_eq!((auth.nkey, auth.jwt), (Some(user.public_key()), None));
        user.verify(b"nonce", &auth.signature.unwrap()).unwrap();
        for wrong in ["hunter2".to_owned(), KeyPair::new_account().seed().unwrap(), user.public_key()] {
            let why = read(|auth| auth.nkey_seed = Some(Secret::new(wrong.clone()))).err().unwrap();
            assert!(why.starts_with("nats.auth.nkey_seed: expected a user's seed") && !why.contains(&wrong), "{why}");
        }
    }
}
