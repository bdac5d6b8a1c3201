//! Answers of servers that are not what was asked for: their status, their code, and a short text of them.
//!
//! Servers explain themselves in XML (S3, GCS, Azure), in JSON, or in whole HTML pages. What is kept of them is one
//! short line without markup and control characters.

use std::error::Error;

use super::cause::{RemoteCause, causes};
use crate::text::on_one_line;

/// Characters kept of what a server says.
const TEXT: usize = 160;

/// Bytes of an answer that are read for its code and text.
pub(super) const READ: usize = 64 * 1024;

/// An answer of a server that is not the one asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status}{}{}", words(reason), words(text))]
pub(super) struct Refusal {
    /// The HTTP status.
    pub(super) status: u16,
    /// The standard words for the status, such as `Forbidden`.
    pub(super) reason: &'static str,
    /// The error code of an object store, such as `AccessDenied`.
    pub(super) code: Option<String>,
    /// What the server says, on one line.
    pub(super) text: String,
}

impl Refusal {
    /// Reads an answer.
    pub(super) fn read(status: reqwest::StatusCode, header_code: Option<&str>, body: &[u8]) -> Self {
        let body = String::from_utf8_lossy(&body[..body.len().min(READ)]);
        let code = element(&body, "Code").or(header_code).filter(|code| is_plain(code)).map(str::to_owned);
        let said = match (&code, element(&body, "Message").or_else(|| element(&body, "title"))) {
            (Some(code), Some(message)) if message.trim() != code => format!("{code}: {message}"),
            (Some(code), _) => code.clone(),
            (None, Some(message)) => message.to_owned(),
            (None, None) => without_markup(&body),
        };
        let reason = status.canonical_reason().unwrap_or_default();
        let text = short(&said);
        let repeats = text.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == ' ');
        let text = if repeats.eq_ignore_ascii_case(reason) { String::new() } else { text };
        Self { status: status.as_u16(), reason, code, text }
    }

    /// The refusal among the causes of an error.
    pub(super) fn of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        causes(error).find_map(|error| error.downcast_ref())
    }

    fn code(&self) -> &str {
        self.code.as_deref().unwrap_or_default()
    }

    /// Whether the object exists in a storage class that cannot be read at once.
    pub(super) fn is_archived(&self) -> bool {
        matches!(self.code(), "InvalidObjectState" | "BlobArchived" | "BlobBeingRehydrated")
    }

    /// Whether the answer says neither more nor less than "forbidden".
    pub(super) fn is_plain_denial(&self) -> bool {
        self.status == 403 && matches!(self.code(), "" | "AccessDenied")
    }

    /// Whether the answer may hide its reason, since answers to HEAD have no body.
    pub(super) fn is_unexplained(&self) -> bool {
        matches!(self.status, 400 | 401 | 403) && self.code.is_none()
    }

    /// Whether the server does not know the operation, or not under this condition.
    pub(super) fn is_unsupported(&self) -> bool {
        matches!(self.status, 405 | 501) || self.code() == "NotImplemented"
    }

    /// What stands behind it.
    pub(super) fn cause(&self) -> RemoteCause {
        // Azurite names the code of a missing permission, and says what it means.
        if self.status == 403 && self.text.contains("failed to authenticate") {
            return RemoteCause::Credentials;
        }
        if let Some(cause) = of_code(self.code()) {
            return cause;
        }
        match self.status {
            401 | 407 => RemoteCause::Credentials,
            403 => RemoteCause::Forbidden,
            405 | 501 => RemoteCause::Unsupported,
            413 => RemoteCause::TooLarge,
            429 | 503 => RemoteCause::Overloaded,
            507 => RemoteCause::Full,
            300..=399 => RemoteCause::Moved,
            500..=599 => RemoteCause::ServerError,
            _ => RemoteCause::Unknown,
        }
    }
}

/// The cause that an error code of an object store names.
fn of_code(code: &str) -> Option<RemoteCause> {
    Some(match code {
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidToken"
        | "InvalidSecurity"
        | "AuthFailure"
        | "AuthenticationFailed"
        | "InvalidAuthenticationInfo"
        | "NoAuthenticationInformation" => RemoteCause::Credentials,
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "RequestExpired" => {
            RemoteCause::ExpiredCredentials
        }
        "RequestTimeTooSkewed" | "RequestTimeTooSkewedException" => RemoteCause::ClockSkew,
        "AccessDenied" | "AuthorizationFailure" | "AuthorizationPermissionMismatch" => RemoteCause::Forbidden,
        "NoSuchBucket" | "ContainerNotFound" | "InvalidBucketName" | "AllAccessDisabled" => {
            RemoteCause::NoBucket
        }
        "PermanentRedirect" | "TemporaryRedirect" | "AuthorizationHeaderMalformed" => RemoteCause::Moved,
        "EntityTooLarge" | "RequestBodyTooLarge" | "MaxMessageLengthExceeded" => RemoteCause::TooLarge,
        "NotImplemented" | "MethodNotAllowed" => RemoteCause::Unsupported,
        "SlowDown" | "ServerBusy" | "RequestLimitExceeded" | "ThrottlingException" => RemoteCause::Overloaded,
        "QuotaExceeded" | "XMinioStorageFull" | "AccountLimitExceeded" => RemoteCause::Full,
        _ => return None,
    })
}

/// Words after a status; empty text adds none.
fn words(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" {text}") }
}

/// Whether a text can be an error code.
fn is_plain(code: &str) -> bool {
    !code.is_empty() && code.len() <= 64 && code.chars().all(|letter| letter.is_ascii_alphanumeric())
}

/// The content of the first element of that name in XML or HTML.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(content, _)| content)
}

/// The text of a page, without the names of its elements.
fn without_markup(page: &str) -> String {
    let mut parts = page.split('<');
    let first = parts.next().unwrap_or_default();
    let rest = parts.filter_map(|part| part.split_once('>')).map(|(_, text)| text);
    std::iter::once(first).chain(rest).collect::<Vec<_>>().join(" ")
}

/// A text on one short line; control characters are shown as escapes.
pub(super) fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let cut: String = line.chars().take(TEXT).collect();
    let end = if cut.len() < line.len() { "…" } else { "" };
    format!("{}{end}", on_one_line(&cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> Refusal {
        Refusal::read(reqwest::StatusCode::from_u16(status).unwrap(), None, body.as_bytes())
    }

    #[test]
    fn a_page_becomes_one_short_line() {
        let nginx = "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>\r\n<center><h1>413 \
                     Request Entity Too Large</h1></center>\r\n<hr><center>nginx/1.22.1</center>\r\n</body></html>";
        assert_eq!(read(413, nginx).to_string(), "413 Payload Too Large 413 Request Entity Too Large");
        assert_eq!(read(404, "<h1>Not Found</h1>").to_string(), "404 Not Found");
        assert_eq!(read(500, "").to_string(), "500 Internal Server Error");
        let long = read(500, &"word ".repeat(10_000)).to_string();
        assert!(long.chars().count() < 200 && long.ends_with('…'), "{long}");
    }

    #[test]
    fn what_a_server_says_cannot_move_the_cursor() {
        let said = read(500, "first\n\u{1b}[2Jsecond\u{202e}third\u{7}").to_string();
        assert_eq!(said, "500 Internal Server Error first \\u001b[2Jsecond\\u202ethird\\u0007");
    }

    #[test]
    fn codes_of_object_stores_name_the_cause_before_the_status_does() {
        let answer = |status, code: &str| {
            read(status, &format!("<Error><Code>{code}</Code><Message>It is so.</Message></Error>"))
        };
        let expired = answer(400, "ExpiredToken");
        assert_eq!(expired.to_string(), "400 Bad Request ExpiredToken: It is so.");
        assert_eq!(expired.cause(), RemoteCause::ExpiredCredentials);
        assert_eq!(answer(403, "RequestTimeTooSkewed").cause(), RemoteCause::ClockSkew);
        assert_eq!(answer(403, "SignatureDoesNotMatch").cause(), RemoteCause::Credentials);
        assert_eq!(answer(403, "AccessDenied").cause(), RemoteCause::Forbidden);
        assert_eq!(answer(404, "NoSuchBucket").cause(), RemoteCause::NoBucket);
        let azurite = "<Error><Code>AuthorizationFailure</Code><Message>Server failed to authenticate the request.\
                       </Message></Error>";
        assert_eq!(read(403, azurite).cause(), RemoteCause::Credentials);
        assert_eq!(answer(403, "AuthorizationFailure").cause(), RemoteCause::Forbidden);
        assert_eq!(answer(301, "PermanentRedirect").cause(), RemoteCause::Moved);
        assert!(
            answer(403, "InvalidObjectState").is_archived()
                && !answer(403, "InvalidObjectState").is_plain_denial()
        );
        assert!(read(403, "").is_plain_denial() && read(403, "").is_unexplained());
        assert_eq!(read(401, "").cause(), RemoteCause::Credentials);
        assert_eq!(read(413, "").cause(), RemoteCause::TooLarge);
        assert_eq!(read(501, "").cause(), RemoteCause::Unsupported);
        assert_eq!(answer(503, "SlowDown").cause(), RemoteCause::Overloaded);
        assert_eq!(answer(418, "x; rm -rf").code, None, "not a code");
    }
}
