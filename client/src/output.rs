//! What a command answers: one JSON value for programs, the same in words for people. Printed in one place.

use std::io::Write;

use serde_json::{Value, json};

use crate::error::Failure;

/// A command's answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// For `--json`.
    pub json: Value,
    /// For people.
    pub text: String,
    /// The process's exit code.
    pub exit: u8,
}

impl Reply {
    /// An answer with exit code 0.
    pub fn new(json: Value, text: impl Into<String>) -> Reply {
        Reply { json, text: text.into(), exit: 0 }
    }

    /// The same answer with another exit code.
    pub fn exit(self, exit: u8) -> Reply {
        Reply { exit, ..self }
    }

    /// The same answer with one more field of JSON.
    pub fn with(mut self, key: &str, value: impl serde::Serialize) -> Reply {
        self.json[key] = json!(value);
        self
    }
}

/// Prints an answer or failure on standard output (failures for people on standard error) and gives the
/// exit code.
pub fn print(outcome: Result<Reply, Failure>, as_json: bool) -> u8 {
    let exit = match &outcome {
        Ok(reply) => reply.exit,
        Err(failure) => failure.exit(),
    };
    let written = match outcome {
        Ok(reply) if as_json => writeln!(std::io::stdout(), "{}", reply.json),
        Ok(reply) => writeln!(std::io::stdout(), "{}", harmless(reply.text.trim_end())),
        Err(failure) if as_json => {
            let error = json!({
                "error": failure.to_string(),
                "exit": exit,
                "code": failure.number(),
                "code_name": failure.name(),
            });
            writeln!(std::io::stdout(), "{error}")
        }
        Err(failure) => {
            let text = harmless(&format!("{failure} [{}]", failure.name()));
            writeln!(std::io::stderr(), "assent: {text}")
        }
    };
    // A reader that went away has had what it wanted.
    drop(written);
    exit
}

/// The text without what could steer a terminal: some of it comes from nodes and from others' files.
fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_cannot_steer_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\r\nc\u{9b}\u{7}"), "a\u{fffd}[2Jb\u{fffd}\nc\u{fffd}\u{fffd}");
    }
}
