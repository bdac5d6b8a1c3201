//! Advice for remotes: the variable, the permission or the server's line that mends it.

use crate::cache::{RemoteCause, RemoteWarning};

/// The kinds of remotes that advice distinguishes.
#[derive(Clone, Copy, PartialEq)]
enum RemoteKind {
    Folder,
    S3,
    Gcs,
    Azure,
    Http,
}

impl RemoteKind {
    fn of(address: &str) -> Self {
        match address.split_once("://").map(|(scheme, _)| scheme) {
            None | Some("file") => Self::Folder,
            Some("gs") => Self::Gcs,
            Some("az") => Self::Azure,
            Some("http" | "https") => Self::Http,
            Some(_) => Self::S3,
        }
    }
}

/// Returns a hint for a warning of the remote.
pub(in crate::cli) fn warning(warning: &RemoteWarning) -> Option<String> {
    let kind = RemoteKind::of(warning.address());
    let advice = match warning {
        RemoteWarning::Refused { .. } | RemoteWarning::MoreRefused { .. } => return None,
        RemoteWarning::Archived { .. } => {
            return Some("restore them, or keep the remote's files out of its life-cycle rules".to_owned());
        }
        RemoteWarning::Hidden { .. } => hidden(kind),
        RemoteWarning::NoFolder { .. } => FOLDER,
        _ => advice(kind, warning.cause()),
    };
    let advice = match warning {
        RemoteWarning::Unreachable { .. } | RemoteWarning::NotConfigured { .. } => {
            format!("{advice}, or run without it: `--remote off`")
        }
        RemoteWarning::NotWritable { .. } => {
            format!("{advice}, or set `remote_mode = \"read-only\"` in patchflow.toml")
        }
        _ => advice.to_owned(),
    };
    Some(format!("{advice} (docs/sharing.md)"))
}

const FOLDER: &str = "check that the folder is mounted and that you may read and write it";

/// What mends a cause.
fn advice(kind: RemoteKind, cause: RemoteCause) -> &'static str {
    match cause {
        RemoteCause::NoCredentials | RemoteCause::Credentials => credentials(kind),
        RemoteCause::ExpiredCredentials => expired(kind),
        RemoteCause::ClockSkew => "set the clock of this machine (`timedatectl`)",
        RemoteCause::Forbidden => permission(kind),
        RemoteCause::NoBucket => bucket(kind),
        RemoteCause::NoFolder => "make the folder on the server, or check the address",
        RemoteCause::TooLarge => too_large(kind),
        RemoteCause::Unsupported => unsupported(kind),
        RemoteCause::Overloaded => "run fewer machines at once against it, or later again",
        RemoteCause::Full => "free some space there",
        RemoteCause::Moved => moved(kind),
        RemoteCause::NoAnswer => unreachable_server(kind),
        RemoteCause::ServerError | RemoteCause::Unknown => other(kind),
    }
}

fn credentials(kind: RemoteKind) -> &'static str {
    match kind {
        RemoteKind::Folder => FOLDER,
        RemoteKind::S3 => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN for temporary ones; ~/.aws is not read)"
        }
        RemoteKind::Gcs => {
            "set GOOGLE_APPLICATION_CREDENTIALS to a service account's JSON file, or GOOGLE_BEARER_TOKEN"
        }
        RemoteKind::Azure => {
            "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN (a connection \
             string is not read)"
        }
        RemoteKind::Http => "set PATCHFLOW_HTTP_USER and PATCHFLOW_HTTP_PASSWORD",
    }
}

fn expired(kind: RemoteKind) -> &'static str {
    match kind {
        RemoteKind::S3 => {
            "renew AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN; `patchflow cache push` then pushes \
             the rest"
        }
        RemoteKind::Azure => "renew AZURE_STORAGE_SAS_TOKEN; `patchflow cache push` then pushes the rest",
        RemoteKind::Gcs => "renew GOOGLE_BEARER_TOKEN; `patchflow cache push` then pushes the rest",
        RemoteKind::Folder | RemoteKind::Http => "log in again; `patchflow cache push` then pushes the rest",
    }
}

fn permission(kind: RemoteKind) -> &'static str {
    match kind {
        RemoteKind::Folder => FOLDER,
        RemoteKind::S3 => {
            "allow s3:GetObject and s3:PutObject below the prefix, and s3:ListBucket for `cache pull`"
        }
        RemoteKind::Gcs => "give the account the role Storage Object User for the bucket",
        RemoteKind::Azure => {
            "give the token the permissions r, w, c and l, or the account the role Storage Blob Data Contributor"
        }
        RemoteKind::Http => "allow this user GET, HEAD, PUT and MKCOL below the address",
    }
}

fn bucket(kind: RemoteKind) -> &'static str {
    match kind {
        RemoteKind::S3 => "make the bucket, or check its name, AWS_ENDPOINT_URL and AWS_REGION",
        RemoteKind::Gcs => "make the bucket, or check its name",
        RemoteKind::Azure => {
            "make the container, or check its name, AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ENDPOINT"
        }
        RemoteKind::Folder | RemoteKind::Http => "check the address",
    }
}

fn too_large(kind: RemoteKind) -> &'static str {
    match kind {
        RemoteKind::Http => {
            "let the server take files of 64 MiB (nginx: `client_max_body_size 0;`, Apache: `LimitRequestBody 0`)"
        }
        _ => "let the server, or the proxy before it, take requests of 64 MiB",
    }
}

fn unsupported(kind: RemoteKind) -> &'static str {
    match kind {
        RemoteKind::Folder => "mount it writable",
        RemoteKind::Http => "let the server take PUT (nginx: `dav_methods PUT MKCOL;`, Apache: `Dav On`)",
        _ => "check that the server is a complete object store",
    }
}

fn moved(kind: RemoteKind) -> &'static str {
    match kind {
        RemoteKind::S3 => "set AWS_REGION to the region of the bucket, or AWS_ENDPOINT_URL to its server",
        _ => "use the address that the server names",
    }
}

fn unreachable_server(kind: RemoteKind) -> &'static str {
    match kind {
        RemoteKind::Folder => FOLDER,
        RemoteKind::S3 => "check that AWS_ENDPOINT_URL and AWS_REGION are right and that the server runs",
        RemoteKind::Azure => {
            "check that AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ENDPOINT are right and that the server runs"
        }
        RemoteKind::Gcs | RemoteKind::Http => "check that the address is right and that its server runs",
    }
}

fn other(kind: RemoteKind) -> &'static str {
    match kind {
        RemoteKind::Folder => FOLDER,
        RemoteKind::Http => "check that the address is right, and the log of its server",
        _ => "check that the address and the credentials in the environment are right",
    }
}

fn hidden(kind: RemoteKind) -> &'static str {
    match kind {
        RemoteKind::S3 => {
            "allow s3:ListBucket on the bucket, or check that s3:GetObject is allowed below the prefix"
        }
        RemoteKind::Gcs => "allow storage.objects.list on the bucket, or check that the files may be read",
        _ => "check that the files may be read",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(address: &str, cause: RemoteCause) -> String {
        let (address, failure) = (address.to_owned(), "it broke".to_owned());
        warning(&RemoteWarning::Unreachable { address, cause, failure }).unwrap()
    }

    #[test]
    fn a_warning_of_the_remote_names_what_to_check_and_how_to_go_on() {
        assert!(hint("http://host/cache", RemoteCause::NoAnswer).contains("its server runs"));
        assert!(hint("/mnt/team", RemoteCause::Unknown).contains("is mounted"));
        assert!(hint("s3://bucket", RemoteCause::Unknown).contains("--remote off"));
        let (address, failure) = ("/mnt/team".to_owned(), "it broke".to_owned());
        let cause = RemoteCause::Forbidden;
        assert!(
            warning(&RemoteWarning::NotWritable { address, cause, failure }).unwrap().contains("read-only")
        );
    }

    #[test]
    fn the_variable_or_the_line_that_mends_it_is_named() {
        for (address, cause, named) in [
            ("s3://bucket", RemoteCause::NoCredentials, "AWS_ACCESS_KEY_ID"),
            ("s3://bucket", RemoteCause::ExpiredCredentials, "AWS_SESSION_TOKEN"),
            ("s3://bucket", RemoteCause::Forbidden, "s3:GetObject"),
            ("s3://bucket", RemoteCause::Moved, "AWS_REGION"),
            ("s3://bucket", RemoteCause::NoBucket, "make the bucket"),
            ("gs://bucket", RemoteCause::NoCredentials, "GOOGLE_APPLICATION_CREDENTIALS"),
            ("az://container", RemoteCause::NoCredentials, "AZURE_STORAGE_ACCOUNT_NAME"),
            ("az://container", RemoteCause::NoBucket, "make the container"),
            ("http://host/x", RemoteCause::Credentials, "PATCHFLOW_HTTP_PASSWORD"),
            ("http://host/x", RemoteCause::TooLarge, "client_max_body_size"),
            ("http://host/x", RemoteCause::Unsupported, "dav_methods"),
            ("http://host/x", RemoteCause::NoFolder, "make the folder"),
        ] {
            let hint = hint(address, cause);
            assert!(hint.contains(named), "{address} {cause:?}: {hint}");
        }
    }
}
