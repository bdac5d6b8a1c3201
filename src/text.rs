//! Text from outside: what a record of a remote says of itself, a server's answer, the name of a file. How it is
//! shown, and which names are plain. Every layer may use it; it uses none.
//!
//! | function | for |
//! |---|---|
//! | [`escaped`] | everything that is written to a terminal: no text can move the cursor, change colours or reorder letters |
//! | [`on_one_line`] | a text inside a line of ours: it cannot begin a line of its own either |
//! | [`without_secrets`] | addresses in messages: user names, passwords and tokens are left out |
//! | [`is_plain_name`] | names that become files or folders |
//! | [`counted`] | a number with its noun |

use std::borrow::Cow;

/// What replaces a secret.
const HIDDEN: &str = "***";

/// Longest plain name in bytes (file systems take 255, and endings are added).
const LONGEST_NAME: usize = 100;

/// Names of parameters of an address whose values are secrets, in lower case; a part of the name is enough.
const SECRET: [&str; 8] = ["sig", "token", "key", "secret", "password", "credential", "auth", "code"];

/// Replaces control characters by `\u001b` and the like, which JSON reads back; keeps line feeds and tabs.
pub fn escaped(text: &str) -> Cow<'_, str> {
    replaced(text, |letter| steers(letter) && letter != '\n' && letter != '\t')
}

/// As [`escaped`], with line feeds and tabs replaced as well.
pub fn on_one_line(text: &str) -> Cow<'_, str> {
    replaced(text, steers)
}

/// Whether a character acts on a terminal rather than being shown: control characters, and those that change the
/// direction of the letters after them.
pub fn steers(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn replaced(text: &str, is_replaced: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_replaced) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_replaced(letter) {
            let code = format!("\\u{:04x}", letter as u32);
            shown.push_str(&code);
        } else {
            shown.push(letter);
        }
    }
    Cow::Owned(shown)
}

/// Formats a count with its noun: `1 task`, `2 tasks`, `3 matches`.
pub fn counted(count: usize, noun: &str) -> String {
    let plural = match count {
        1 => "",
        _ if noun.ends_with("ch") || noun.ends_with('s') => "es",
        _ => "s",
    };
    format!("{count} {noun}{plural}")
}

/// Whether `name` is safe as the name of a file or folder on every system: letters, digits, `_`, `-`, `.`; no dot at
/// either end, at most 100 bytes.
pub fn is_plain_name(name: &str) -> bool {
    let is_plain = |letter: char| letter.is_alphanumeric() || "_-.".contains(letter);
    !name.is_empty()
        && name.len() <= LONGEST_NAME
        && name.chars().all(is_plain)
        && !name.starts_with('.')
        && !name.ends_with('.')
}

/// Replaces the user, the password and the tokens of every address in a text: `https://me:pw@host/a?sig=x` becomes
/// `https://***@host/a?sig=***`.
pub fn without_secrets(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let (mut shown, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(start) = rest.find("://") {
        let (before, address) = rest.split_at(start + 3);
        shown.push_str(before);
        let length = address.find(ends_address).unwrap_or(address.len());
        let (address, after) = address.split_at(length);
        push_address(&mut shown, address);
        rest = after;
    }
    shown.push_str(rest);
    Cow::Owned(shown)
}

fn ends_address(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, '"' | '\'' | '`' | '<' | '>')
}

/// Writes an address without its scheme and its secrets.
fn push_address(shown: &mut String, address: &str) {
    let mut address = address;
    if let Some(end) = end_of_user(address) {
        shown.push_str(HIDDEN);
        shown.push('@');
        address = &address[end..];
    }
    let Some((path, query)) = address.split_once('?') else { return shown.push_str(address) };
    shown.push_str(path);
    for (index, parameter) in query.split('&').enumerate() {
        shown.push(if index == 0 { '?' } else { '&' });
        match parameter.split_once('=') {
            Some((name, _)) if is_secret(name) => {
                shown.push_str(name);
                shown.push('=');
                shown.push_str(HIDDEN);
            }
            _ => shown.push_str(parameter),
        }
    }
}

/// Where the user and the password of an address end, one past the `@`. A password that holds a `/` as typed is found
/// as well: what looks like a port is no number then.
fn end_of_user(address: &str) -> Option<usize> {
    let host = address.find(['/', '?', '#']).map_or(address, |end| &address[..end]);
    if let Some(at) = host.rfind('@') {
        return Some(at + 1);
    }
    let (_, port) = host.split_once(':')?;
    let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if is_port || host.starts_with('[') { None } else { address.rfind('@').map(|at| at + 1) }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    SECRET.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_is_left() {
        let cases = [
            ("plain ü text", "plain ü text"),
            ("\x1b[31mred\x1b[0m", "\\u001b[31mred\\u001b[0m"),
            ("\u{9b}2J", "\\u009b2J"),
            ("a\rb\x07\x08\0", "a\\u000db\\u0007\\u0008\\u0000"),
            ("user\u{202e}gnp.exe", "user\\u202egnp.exe"),
            ("two\n\tlines", "two\n\tlines"),
        ];
        for (text, shown) in cases {
            assert_eq!(escaped(text), shown);
            assert!(!on_one_line(text).chars().any(steers), "{text:?}");
        }
        assert_eq!(on_one_line("a\nerror: b"), "a\\u000aerror: b");
        let json = serde_json::to_string("\u{9b}\x1b\n").unwrap();
        assert_eq!(serde_json::from_str::<String>(&escaped(&json)).unwrap(), "\u{9b}\x1b\n");
    }

    #[test]
    fn addresses_lose_their_secrets_and_nothing_else() {
        let cases = [
            ("http://host/cache", "http://host/cache"),
            ("http://host:8080/a@b", "http://host:8080/a@b"),
            ("https://me:pa@ss@host/cache", "https://***@host/cache"),
            ("https://me:pa/ss@host/cache", "https://***@host/cache"),
            ("https://token@host", "https://***@host"),
            ("cannot get `http://u:p@h/x`: u", "cannot get `http://***@h/x`: u"),
            ("https://a/b?sv=1&sig=abc%3D&se=2", "https://a/b?sv=1&sig=***&se=2"),
            ("s3://b/p?X-Amz-Credential=AKIA&list-type=2", "s3://b/p?X-Amz-Credential=***&list-type=2"),
            ("two: ftp://a:b@c ftp://d:e@f", "two: ftp://***@c ftp://***@f"),
            ("http://[::1]:80/x@y", "http://[::1]:80/x@y"),
            ("no address, a@b", "no address, a@b"),
        ];
        for (text, shown) in cases {
            assert_eq!(without_secrets(text), shown);
        }
    }

    #[test]
    fn one_of_a_thing_is_singular() {
        let all = [counted(1, "task"), counted(0, "task"), counted(2, "match"), counted(1, "match")];
        assert_eq!(all, ["1 task", "0 tasks", "2 matches", "1 match"]);
    }

    #[test]
    fn plain_names_lead_nowhere_else() {
        for name in ["a", "bank_2", "scores.csv", "größe", "A-1"] {
            assert!(is_plain_name(name), "{name:?}");
        }
        let long = "x".repeat(101);
        for name in [
            "", ".", "..", ".hidden", "a.", "a/b", "/a", "../x", "a\\b", "a\0", "a b", "a\n", "\x1b", "a:b",
            &long,
        ] {
            assert!(!is_plain_name(name), "{name:?}");
        }
    }
}
