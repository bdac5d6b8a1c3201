//! An error with its causes as one text.

/// Joins an error and its causes by colons; leaves out a cause whose message the text already contains.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let message = cause.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{message}")]
    struct Link {
        message: &'static str,
        source: Option<Box<Link>>,
    }

    #[test]
    fn causes_follow_their_effect_and_are_named_once() {
        let cause = Link { message: "no such file", source: None };
        let middle = Link { message: "cannot read `a`: no such file", source: Some(Box::new(cause)) };
        let error = Link { message: "cannot start", source: Some(Box::new(middle)) };
        assert_eq!(error_chain(&error), "cannot start: cannot read `a`: no such file");
    }
}
