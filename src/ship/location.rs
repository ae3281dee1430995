//! What `[upload] url` and `endpoint` mean.

use super::settings::{UploadSettings, without_secrets};
use url::{Host, Url};

/// S3 takes no smaller part but the last, and no larger object in one put.
const MULTIPART: std::ops::RangeInclusive<u64> = 5 << 20..=5 << 30;

/// Which cloud a URL means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    S3,
    Gcs,
    Azure,
    File,
}

/// A URL that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub scheme: Scheme,
    /// The bucket or container; empty for files.
    pub bucket: String,
    /// What stands before every key, without slashes at its ends; for files the directory.
    pub prefix: String,
}

impl UploadSettings {
    /// Checks the settings without asking anyone.
    ///
    /// # Errors
    /// Names key and value, what was expected, and what to do.
    pub fn validate(&self) -> Result<(), String> {
        self.location()?;
        self.http_allowed()?;
        if !MULTIPART.contains(&self.multipart_bytes.as_u64()) {
            return Err(format!("upload.multipart_bytes={} is not within 5 MiB and 5 GiB", self.multipart_bytes));
        }
        if self.max_rows == 0 {
            return Err("upload.max_rows=0 would never upload a row; give at least 1".to_owned());
        }
        if self.every.is_zero() {
            return Err("upload.every=0s would never rest; give at least 1s".to_owned());
        }
        Ok(())
    }

    /// What `url` means; `None` when nothing is uploaded.
    pub(super) fn location(&self) -> Result<Option<Location>, String> {
        let Some(text) = &self.url else { return Ok(None) };
        let shown = without_secrets(text);
        let expected = "expected s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///directory";
        let url = Url::parse(text).map_err(|error| format!("upload.url={shown:?} is no URL ({error}); {expected}"))?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(format!(
                "upload.url={shown:?} has a user, a query or a fragment; credentials come from the environment or a profile; {expected}"
            ));
        }
        let scheme = match url.scheme() {
            "s3" => Scheme::S3,
            "gs" => Scheme::Gcs,
            "az" => Scheme::Azure,
            "file" => Scheme::File,
            _ => return Err(format!("upload.url={shown:?} has an unknown scheme; {expected}")),
        };
        if scheme == Scheme::File {
            let path =
                url.to_file_path().map_err(|()| format!("upload.url={shown:?} is no directory of this machine; {expected}"))?;
            let prefix = path.to_str().ok_or_else(|| format!("upload.url={shown:?} is not UTF-8"))?.to_owned();
            return Ok(Some(Location { scheme, bucket: String::new(), prefix }));
        }
        let bucket =
            url.host_str().filter(|host| !host.is_empty()).ok_or(format!("upload.url={shown:?} names no bucket; {expected}"))?;
        // The path as it was written: the key is no URL, and what stands for itself there must stand for itself here.
        let rest = text.split_once("://").map_or("", |(_, rest)| rest);
        let prefix = rest.split_once('/').map_or("", |(_, path)| path).trim_matches('/').to_owned();
        object_store::path::Path::parse(&prefix).map_err(|error| format!("upload.url={shown:?}: {error}; {expected}"))?;
        Ok(Some(Location { scheme, bucket: bucket.to_owned(), prefix }))
    }

    /// What `url` means for a client whose store begins at the bucket, or at the directory: a URL whose path is a key. `None` when nothing is uploaded.
    #[cfg(feature = "delta")]
    pub(crate) fn root_url(&self) -> Result<Option<String>, String> {
        let Some(location) = self.location()? else { return Ok(None) };
        let base = match location.scheme {
            Scheme::File => return Ok(Some("file:///".to_owned())),
            Scheme::S3 => format!("s3://{}", location.bucket),
            Scheme::Gcs => format!("gs://{}", location.bucket),
            Scheme::Azure => format!("az://{}", location.bucket),
        };
        let mut url = Url::parse(&base).map_err(|error| error.to_string())?;
        if let Ok(mut segments) = url.path_segments_mut() {
            // The empty one is the slash at the end, which says that this is a directory.
            segments.extend(location.prefix.split('/').filter(|part| !part.is_empty())).push("");
        }
        Ok(Some(url.into()))
    }

    /// Whether requests may go without TLS: when the endpoint says so and is on this machine, or it was allowed.
    pub(super) fn http_allowed(&self) -> Result<bool, String> {
        let Some(text) = &self.endpoint else { return Ok(false) };
        let shown = without_secrets(text);
        let url = Url::parse(text)
            .map_err(|error| format!("upload.endpoint={shown:?} is no URL ({error}); expected https://host:port"))?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(format!(
                "upload.endpoint={shown:?} has a user or a query; credentials come from the environment or a profile"
            ));
        }
        match url.scheme() {
            "https" => Ok(false),
            "http" if self.allow_http || is_loopback(&url) => Ok(true),
            "http" => Err(format!(
                "upload.endpoint={shown:?} is not encrypted and not on this machine; give https://…, or set upload.allow_http = true"
            )),
            _ => Err(format!("upload.endpoint={shown:?} is neither https:// nor http://")),
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// An error's text as it may be kept and shown: on one line, not endless, and its URLs without their queries (Azure's and presigned ones
/// carry a signature there).
pub(crate) fn clean(text: &str) -> String {
    const MOST: usize = 1_000;
    let mut out = String::with_capacity(text.len().min(MOST));
    for word in text.split_whitespace() {
        let (head, tail) = match word.split_once('?') {
            Some((head, query)) if head.contains("://") => {
                let end = query.find([')', '"', '\'', '>', ',']).unwrap_or(query.len());
                (head, &query[end..])
            }
            _ => (word, ""),
        };
        if out.len() + word.len() > MOST {
            out.push_str(" …");
            break;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(head);
        out.push_str(tail);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytesize::ByteSize;
    use std::time::Duration;

    fn with_url(url: &str) -> UploadSettings {
        UploadSettings { url: Some(url.to_owned()), ..UploadSettings::default() }
    }

    #[test]
    fn urls_mean_what_they_say() {
        for (url, scheme, bucket, prefix) in [
            ("s3://bucket", Scheme::S3, "bucket", ""),
            ("s3://bucket/", Scheme::S3, "bucket", ""),
            ("s3://my.bucket/a/b%2Fc/", Scheme::S3, "my.bucket", "a/b%2Fc"),
            ("gs://bucket/a b", Scheme::Gcs, "bucket", "a b"),
            ("az://container/x", Scheme::Azure, "container", "x"),
            ("file:///var/a%20b", Scheme::File, "", "/var/a b"),
        ] {
            let location = with_url(url).location().unwrap().unwrap();
            assert_eq!(location, Location { scheme, bucket: bucket.into(), prefix: prefix.into() }, "{url}");
        }
        assert_eq!(UploadSettings::default().location(), Ok(None));
        assert_eq!(UploadSettings::default().validate(), Ok(()));
    }

    #[test]
    fn a_wrong_url_is_named_and_no_secret_is() {
        for url in [
            "bucket",
            "s3:///prefix",
            "http://bucket/x",
            "s3://key:secret@bucket/x",
            "az://c/x?sig=secret",
            "s3://b/a/../c",
            "s3://b/a//c",
        ] {
            let error = with_url(url).validate().unwrap_err();
            assert!(error.contains("upload.url=") && error.contains("expected s3://") && !error.contains("secret"), "{error}");
            assert!(!format!("{:?}", with_url(url)).contains("secret"));
        }
    }

    #[test]
    fn plain_http_needs_this_machine_or_consent() {
        let endpoint = |text: &str| UploadSettings { endpoint: Some(text.to_owned()), ..UploadSettings::default() };
        for text in ["http://127.0.0.1:9000", "http://localhost", "http://[::1]:9000"] {
            assert_eq!(endpoint(text).http_allowed(), Ok(true), "{text}");
        }
        assert_eq!(endpoint("https://minio.example").http_allowed(), Ok(false));
        let error = endpoint("http://minio.example").validate().unwrap_err();
        assert!(error.contains("minio.example") && error.contains("upload.allow_http"), "{error}");
        let allowed = UploadSettings { allow_http: true, ..endpoint("http://minio.example") };
        assert_eq!(allowed.http_allowed(), Ok(true));
        for text in ["minio:9000", "ftp://minio", "http://user:secret@localhost"] {
            let error = endpoint(text).validate().unwrap_err();
            assert!(error.contains("upload.endpoint=") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        let base = UploadSettings::default();
        for (settings, key) in [
            (UploadSettings { multipart_bytes: ByteSize::mib(4), ..base.clone() }, "multipart_bytes"),
            (UploadSettings { max_rows: 0, ..base.clone() }, "max_rows"),
            (UploadSettings { every: Duration::ZERO, ..base.clone() }, "every"),
        ] {
            assert!(settings.validate().unwrap_err().contains(&format!("upload.{key}=")));
        }
    }

    #[test]
    fn errors_are_kept_short_and_without_signatures() {
        let text = "error sending request for url\n(https://a.blob/c/x?sv=1&sig=secret): refused? yes";
        assert_eq!(clean(text), "error sending request for url (https://a.blob/c/x): refused? yes");
        assert!(clean(&"word ".repeat(10_000)).len() < 1_100);
    }
}
