//! What all commands share: the global options, and from them the genesis file, the node, the passphrase, and
//! the one way in which a transaction is built, sent and reported.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use age::secrecy::SecretString;
use assent_genesis::Genesis;
use assent_proto::transaction::{Action, Author, Body};
use assent_proto::{Envelope, InstitutionId, SecretKey, TimeMs};
use clap::Args;
use serde_json::json;

use crate::error::{EXIT_DENIED, Failure};
use crate::files;
use crate::keyfile::{self, InstitutionSecrets};
use crate::output::Reply;
use crate::rpc::{Final, Node, denial_name};
use crate::words::{self, Lang, kebab};

/// Under which heading these stand in the help of each command.
const EVERYWHERE: &str = "Options of every command";

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub struct Context {
    /// The chain's founding document: all that is believed beforehand
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "FILE")]
    pub genesis: Option<PathBuf>,
    /// A node to ask; its answers are verified, so any will do
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "URL", default_value = "http://127.0.0.1:26651")]
    pub node: String,
    /// Answer with one JSON value
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub json: bool,
    /// Language of what people read
    #[arg(long, global = true, help_heading = EVERYWHERE, value_enum, default_value_t = Lang::En)]
    pub lang: Lang,
    /// Read the passphrase of key files from the first line of this file
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "FILE", conflicts_with = "passphrase_fd")]
    pub passphrase_file: Option<PathBuf>,
    /// Read the passphrase of key files from the first line of this open file descriptor
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "N")]
    pub passphrase_fd: Option<u32>,
    /// Seconds within which a transaction must be committed, else it is void
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "SECONDS", default_value_t = 300)]
    pub expires_in: u64,
}

impl Context {
    /// The genesis file.
    pub fn genesis(&self) -> Result<Genesis, Failure> {
        let path = self.genesis.as_deref();
        let path =
            path.ok_or_else(|| Failure::local("NoGenesis", "name the genesis file with --genesis FILE"))?;
        Genesis::load(path).map_err(|e| Failure::local("BadGenesis", format!("{}: {e}", path.display())))
    }

    /// The genesis file and a connection to the node.
    pub fn connect(&self) -> Result<(Genesis, Node), Failure> {
        let genesis = self.genesis()?;
        let node = Node::connect(&self.node, &genesis)?;
        Ok((genesis, node))
    }

    /// The passphrase of an existing key file.
    pub fn passphrase(&self) -> Result<SecretString, Failure> {
        self.given_passphrase()?.map_or_else(|| prompt("Passphrase: "), Ok)
    }

    /// The passphrase of a new key file: at a terminal it is asked for twice.
    pub fn new_passphrase(&self) -> Result<SecretString, Failure> {
        use age::secrecy::ExposeSecret;
        if let Some(given) = self.given_passphrase()? {
            return Ok(given);
        }
        let first = prompt("New passphrase: ")?;
        if first.expose_secret() != prompt("Again: ")?.expose_secret() {
            return Err(Failure::local("Passphrase", "the two passphrases differ"));
        }
        Ok(first)
    }

    fn given_passphrase(&self) -> Result<Option<SecretString>, Failure> {
        let path = match (&self.passphrase_file, self.passphrase_fd) {
            (Some(file), _) => file.clone(),
            (None, Some(fd)) => PathBuf::from(format!("/dev/fd/{fd}")),
            (None, None) => return Ok(None),
        };
        let text = std::fs::read_to_string(&path).map_err(|e| Failure::file(&path, e))?;
        match text.lines().next().unwrap_or_default() {
            "" => Err(Failure::local("Passphrase", format!("{}: its first line is empty", path.display()))),
            line => Ok(Some(SecretString::from(line.to_owned()))),
        }
    }

    /// Opens an institution's key file.
    pub fn institution(&self, keyfile: &Path) -> Result<InstitutionSecrets, Failure> {
        keyfile::open(keyfile, &self.passphrase()?)
    }

    /// When a transaction built now becomes void.
    pub fn expiry(&self) -> TimeMs {
        words::now().plus(self.expires_in.saturating_mul(1000))
    }

    /// A body by this author.
    pub fn body(&self, genesis: &Genesis, author: Author, action: Action) -> Body {
        Body { chain: genesis.hash().tag(), expires_at: self.expiry(), author, action }
    }

    /// Signs an institution's action, submits it, and waits until it is final.
    pub fn act(
        &self,
        genesis: &Genesis,
        node: &mut Node,
        secrets: &InstitutionSecrets,
        action: Action,
    ) -> Result<Done, Failure> {
        let body = self.body(genesis, Author::Institution(secrets.institution()), action);
        self.send(genesis, node, &body, &[&secrets.operator()?])
    }

    /// Signs a body, submits it, and waits until it is final.
    pub fn send(
        &self,
        genesis: &Genesis,
        node: &mut Node,
        body: &Body,
        keys: &[&SecretKey],
    ) -> Result<Done, Failure> {
        let (done, seconds) = node.submit(&Envelope::sign(&genesis.hash(), body, keys))?;
        Ok(Done { done, seconds })
    }
}

/// A transaction that became final, and how long that took.
pub struct Done {
    /// What became of it.
    pub done: Final,
    /// Seconds from submission.
    pub seconds: f64,
}

impl Done {
    /// The answer that every command gives about a transaction of its own; exit 3 when it was denied.
    pub fn reply(&self, lang: Lang) -> Reply {
        let reply = outcome(&self.done, lang);
        let text = format!("{} ({:.2} s)", reply.text, self.seconds);
        Reply { text, ..reply }.with("seconds", self.seconds)
    }
}

/// What became of a transaction, as JSON and in words.
pub fn outcome(done: &Final, lang: Lang) -> Reply {
    let code = done.denial().unwrap_or(0);
    let name = if code == 0 { String::new() } else { denial_name(code) };
    let json = json!({
        "body_id": done.tx.body_id(),
        "action": done.body().action.kind(),
        "outcome": done.outcome(),
        "code": code,
        "code_name": name,
        "height": done.height,
        "time": done.time,
        "events": done.events.iter().map(|e| kebab(&e.core.kind)).collect::<Vec<_>>(),
    });
    let text = match assent_proto::Denial::from_number(code) {
        Some(d) => format!(
            "{} in block {}: {} ({}, {})",
            lang.pick("denied", "已拒绝"),
            done.height,
            lang.pick(d.english(), d.chinese()),
            d.name(),
            code
        ),
        None => format!("{} in block {}: {}", done.outcome(), done.height, done.tx.body_id()),
    };
    Reply::new(json, text).exit(if code == 0 { 0 } else { EXIT_DENIED })
}

/// The id of an institution by short name or by 64 hexadecimal digits.
pub fn institution_id(genesis: &Genesis, name: &str) -> Result<InstitutionId, Failure> {
    // One that came later has no name in the genesis file: its id will do.
    let later = || assent_proto::Hash::from_hex(name).map(InstitutionId);
    genesis.institution(name).map(|i| i.id).or_else(later).ok_or_else(|| {
        let known: Vec<_> = genesis.institutions().iter().map(|i| i.slug.clone()).collect();
        let message =
            format!("{name}: the genesis file knows {}; name others by their ids", known.join(", "));
        Failure::local("NoSuchInstitution", message)
    })
}

/// A text given as such, or as `@FILE`.
pub fn text_or_file(text: &str) -> Result<String, Failure> {
    match text.strip_prefix('@') {
        Some(path) => files::read_text(Path::new(path)),
        None => Ok(text.to_owned()),
    }
}

/// Asks a yes-or-no question at the terminal.
pub fn confirm(question: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::local(
            "NotConfirmed",
            "there is no terminal to ask at; --yes signs without asking",
        ));
    }
    eprint!("{question} [y/N] ");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|e| Failure::local("NotConfirmed", e.to_string()))?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes" | "是"))
}

fn prompt(text: &str) -> Result<SecretString, Failure> {
    rpassword::prompt_password(text).map(SecretString::from).map_err(|e| {
        Failure::local("Passphrase", format!("no passphrase: {e}; use --passphrase-file or --passphrase-fd"))
    })
}
