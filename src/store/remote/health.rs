//! How a remote answers: when it is left alone, and what the user is told.
//!
//! Reading and writing are counted apart, since a server may well give files and take none. A remote is left alone
//! for what failed [`Health::MOST`] times in a row; a refusal to take files counts for all of these. Each thing is told
//! once, with a remedy; failures that did not come to that are told at the end.

/// What a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// Files from there.
    Read,
    /// To put files there.
    Write,
}

/// Why a request failed.
#[derive(Debug)]
pub(super) struct Trouble {
    /// In words.
    pub(super) reason: String,
    /// Whether asking again is of no use: no permission, or no such operation.
    pub(super) is_refusal: bool,
}

impl From<object_store::Error> for Trouble {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error as E;
        let is_refusal = matches!(
            error,
            E::PermissionDenied { .. }
                | E::Unauthenticated { .. }
                | E::NotImplemented { .. }
                | E::NotSupported { .. }
        );
        Self { reason: super::chain(&error), is_refusal }
    }
}

/// Failures of one sort of request.
#[derive(Debug, Default)]
struct Count {
    in_a_row: u32,
    all: usize,
    first: Option<String>,
    is_given_up: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Health {
    remedy: &'static str,
    reads: Count,
    writes: Count,
    warnings: Vec<String>,
}

impl Health {
    /// Failures in a row after which a remote is left alone.
    pub(super) const MOST: u32 = 3;

    /// That of a remote at this address, of which nothing is known yet.
    pub(super) fn new(url: &str) -> Self {
        let remedy = match url.split_once("://").map(|(scheme, _)| scheme) {
            None | Some("file") => "see that the folder is mounted, and that you may read and write it",
            Some("http" | "https") => "see that the address is right and that its server runs",
            Some(_) => "see that the address and the credentials in the environment are right",
        };
        Self { remedy, reads: Count::default(), writes: Count::default(), warnings: Vec::new() }
    }

    /// Whether it is still asked for that. What is not read is not written.
    pub(super) fn allows(&self, want: Want) -> bool {
        !self.reads.is_given_up && (want == Want::Read || !self.writes.is_given_up)
    }

    /// Counts an answer; none where it was a failure.
    pub(super) fn note<T>(&mut self, want: Want, what: &str, answer: Result<T, Trouble>) -> Option<T> {
        let count = match want {
            Want::Read => &mut self.reads,
            Want::Write => &mut self.writes,
        };
        let trouble = match answer {
            Ok(answer) => {
                count.in_a_row = 0;
                return Some(answer);
            }
            Err(trouble) => trouble,
        };
        count.in_a_row += 1;
        count.all += 1;
        let told = format!("{what}: {}", trouble.reason);
        let is_hopeless = trouble.is_refusal && want == Want::Write;
        let first = count.first.get_or_insert(told).clone();
        if !count.is_given_up && (count.in_a_row >= Self::MOST || is_hopeless) {
            count.is_given_up = true;
            let remedy = self.remedy;
            self.tell(match want {
                Want::Read => format!(
                    "does not answer, and is left alone for now ({first}); {remedy}, or go without: `--remote off`"
                ),
                Want::Write => format!(
                    "takes no results, and is only read for now ({first}); {remedy}, or set `remote_mode = \
                     \"read-only\"` in patchflow.toml"
                ),
            });
        }
        None
    }

    /// Leaves the remote alone from the start.
    pub(super) fn give_up(&mut self, reason: &str) {
        self.reads.is_given_up = true;
        let remedy = self.remedy;
        self.tell(format!("cannot be used, and is left alone for now ({reason}); {remedy}"));
    }

    /// Keeps a message, once.
    pub(super) fn tell(&mut self, message: String) {
        if !self.warnings.contains(&message) {
            self.warnings.push(message);
        }
    }

    /// The messages; and the failures after which it was asked on, which the next call does not tell again.
    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        for (count, word) in [(&mut self.reads, "answered"), (&mut self.writes, "taken")] {
            let all = std::mem::take(&mut count.all);
            if let Some(first) = count.first.take().filter(|_| !count.is_given_up && all > 0) {
                let requests =
                    if all == 1 { "1 request was".to_owned() } else { format!("{all} requests were") };
                self.warnings.push(format!("{requests} not {word} (the first: {first}); {}", self.remedy));
            }
        }
        std::mem::take(&mut self.warnings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(is_refusal: bool) -> Result<(), Trouble> {
        Err(Trouble { reason: "it broke".to_owned(), is_refusal })
    }

    #[test]
    fn three_failures_in_a_row_are_enough_and_an_answer_between_them_counts() {
        let mut health = Health::new("http://host/cache");
        for answer in [trouble(false), trouble(false), Ok(()), trouble(false), trouble(false)] {
            health.note(Want::Read, "get it", answer);
            assert!(health.allows(Want::Read));
        }
        health.note(Want::Read, "get it", trouble(true));
        assert!(!health.allows(Want::Read) && !health.allows(Want::Write));
        let warnings = health.take_warnings();
        assert!(warnings.len() == 1 && warnings[0].contains("get it: it broke"), "{warnings:?}");
        assert!(warnings[0].contains("its server runs") && warnings[0].contains("--remote off"));
        assert!(health.take_warnings().is_empty());
    }

    #[test]
    fn what_takes_no_files_is_still_read() {
        let mut health = Health::new("s3://bucket");
        health.note(Want::Write, "put it", trouble(true));
        assert!(health.allows(Want::Read) && !health.allows(Want::Write));
        let warnings = health.take_warnings();
        assert!(warnings.len() == 1 && warnings[0].contains("only read for now"), "{warnings:?}");
    }

    #[test]
    fn few_failures_are_told_at_the_end() {
        let mut health = Health::new("/mnt/team");
        health.note(Want::Write, "put it", trouble(false));
        health.note(Want::Write, "put it", trouble(false));
        let warnings = health.take_warnings();
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].starts_with("2 requests were not taken (the first: put it: it broke)"),
            "{warnings:?}"
        );
        assert!(health.take_warnings().is_empty());
    }
}
