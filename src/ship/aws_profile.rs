//! Static keys from AWS's shared files, which `object_store` does not read.
//!
//! The format is that of <https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>: `[name]` in the credentials file, `[profile name]` or
//! `[default]` in the config file, `key = value`, indented lines belong to the key above. Profiles that get their keys elsewhere (SSO, roles,
//! `credential_process`) are not followed: that takes AWS's whole SDK, several times this crate's size.

use super::settings::UploadSettings;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

/// What a profile says.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Profile {
    /// Key id, secret and, for temporary ones, the session's token.
    pub keys: Option<(String, String, Option<String>)>,
    pub region: Option<String>,
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile").field("keys", &self.keys.as_ref().map(|_| "******")).field("region", &self.region).finish()
    }
}

/// Reads the profile that the settings, or else the environment `env`, ask for.
///
/// Keys are not looked for when the environment brings its own, unless the settings name a profile or a file.
pub(super) fn read(settings: &UploadSettings, env: &dyn Fn(&str) -> Option<String>) -> Result<Profile, String> {
    let env = |key: &str| env(key).filter(|value| !value.is_empty());
    let configured = settings.profile.is_some() || settings.credentials_file.is_some();
    let asked_for = settings.profile.clone().or_else(|| env("AWS_PROFILE"));
    let name = asked_for.clone().unwrap_or_else(|| "default".to_owned());
    let home = |file: &str| env("HOME").map(|home| Path::new(&home).join(".aws").join(file));
    let from_env = |key: &str, file: &str| env(key).map(PathBuf::from).or_else(|| home(file));
    let credentials = settings.credentials_file.clone().or_else(|| from_env("AWS_SHARED_CREDENTIALS_FILE", "credentials"));

    let mut values = HashMap::new();
    if let Some(path) = from_env("AWS_CONFIG_FILE", "config") {
        let section = if name == "default" { name.clone() } else { format!("profile {name}") };
        values.extend(section_of(&read_file(&path, false)?, &section));
    }
    if let Some(path) = &credentials {
        values.extend(section_of(&read_file(path, settings.credentials_file.is_some())?, &name));
    }
    let region = values.remove("region");
    let brought = ["AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"].iter().any(|key| env(key).is_some());
    if brought && !configured {
        return Ok(Profile { keys: None, region });
    }
    let keys = match (values.remove("aws_access_key_id"), values.remove("aws_secret_access_key")) {
        (Some(id), Some(secret)) => Some((id, secret, values.remove("aws_session_token"))),
        _ if configured || asked_for.is_some() => {
            return Err(format!(
                "profile={name:?} has no aws_access_key_id and aws_secret_access_key in credentials_file={:?}; predlog does not follow SSO, roles or \
                 credential_process: run `aws configure export-credentials --profile {name} --format env` and set what it prints",
                credentials.unwrap_or_default()
            ));
        }
        _ => None,
    };
    Ok(Profile { keys, region })
}

fn read_file(path: &Path, must_be: bool) -> Result<String, String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !must_be => Ok(String::new()),
        read => {
            read.map_err(|error| format!("cannot read credentials_file={:?}: {error}; check the path and its permissions", path))
        }
    }
}

/// The keys and values of one section. Of two sections with one name both count, the later first.
fn section_of(text: &str, wanted: &str) -> HashMap<String, String> {
    let mut values = HashMap::new();
    let mut inside = false;
    for line in text.lines() {
        if let Some(header) = line.strip_prefix('[') {
            let name = header.split(']').next().unwrap_or_default();
            inside = name.split_whitespace().collect::<Vec<_>>().join(" ") == wanted;
        } else if inside
            && !line.starts_with([' ', '\t', '#', ';'])
            && let Some((key, value)) = line.split_once('=')
        {
            // A comment may follow, behind white space.
            let value = [" #", " ;", "\t#", "\t;"].iter().fold(value, |value, mark| value.split(mark).next().unwrap_or_default());
            values.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: &str = "# mine\n[default]\naws_access_key_id = AKID\naws_secret_access_key=a/b+c== # not this\n\n[ci]\n\
        aws_access_key_id=CI\r\naws_secret_access_key=sec;ret#1\r\naws_session_token = token\r\n[sso]\nsso_session = x\n";
    const CONFIG: &str = "[default]\nregion = eu-west-1\ns3 =\n  region = wrong\n[profile  ci]\nregion=eu-north-1\n";

    struct Home(tempfile::TempDir);

    impl Home {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            fs::create_dir(home.path().join(".aws")).unwrap();
            fs::write(home.path().join(".aws/credentials"), CREDENTIALS).unwrap();
            fs::write(home.path().join(".aws/config"), CONFIG).unwrap();
            Home(home)
        }

        fn read(&self, settings: &UploadSettings, more: &[(&str, &str)]) -> Result<Profile, String> {
            read(settings, &|key| match key {
                "HOME" => self.0.path().to_str().map(str::to_owned),
                _ => more.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).to_owned()),
            })
        }
    }

    fn named(profile: &str) -> UploadSettings {
        UploadSettings { profile: Some(profile.to_owned()), ..UploadSettings::default() }
    }

    #[test]
    fn reads_the_profile_that_is_asked_for() {
        let home = Home::new();
        let default = home.read(&UploadSettings::default(), &[]).unwrap();
        assert_eq!(default.keys, Some(("AKID".into(), "a/b+c==".into(), None)));
        assert_eq!(default.region.as_deref(), Some("eu-west-1"));
        let ci = home.read(&UploadSettings::default(), &[("AWS_PROFILE", "ci")]).unwrap();
        assert_eq!(ci.keys, Some(("CI".into(), "sec;ret#1".into(), Some("token".into()))));
        assert_eq!(ci.region.as_deref(), Some("eu-north-1"));
        assert_eq!(home.read(&named("ci"), &[("AWS_PROFILE", "default")]).unwrap(), ci);
    }

    #[test]
    fn keys_of_the_environment_go_before_a_profile_that_was_not_set_for_predlog() {
        let home = Home::new();
        let env = [("AWS_ACCESS_KEY_ID", "ENV")];
        assert_eq!(home.read(&UploadSettings::default(), &env).unwrap().keys, None);
        assert!(home.read(&named("ci"), &env).unwrap().keys.is_some());
    }

    #[test]
    fn a_profile_without_keys_says_what_to_do() {
        let home = Home::new();
        for settings in [named("sso"), named("missing")] {
            let error = home.read(&settings, &[]).unwrap_err();
            assert!(error.contains("profile=") && error.contains("export-credentials"), "{error}");
        }
        let lost = UploadSettings { credentials_file: Some("/nowhere/keys".into()), ..UploadSettings::default() };
        assert!(home.read(&lost, &[]).unwrap_err().contains("/nowhere/keys"));
        assert_eq!(read(&UploadSettings::default(), &|_| None).unwrap(), Profile::default());
    }

    #[test]
    fn no_secret_is_shown() {
        let profile = Home::new().read(&named("ci"), &[]).unwrap();
        assert!(!format!("{profile:?}").contains("ret#1"));
    }
}
