//! The person's wallet: her accounts' keys, what she is asked in plain words, what she signs, and what became
//! of it (R2, R5). One account with each custodian; each has a key of its own, so that nothing on the chain
//! links them.

use std::path::{Path, PathBuf};

use age::secrecy::SecretString;
use assent_genesis::Genesis;
use assent_proto::envelope::SignatureEntry;
use assent_proto::event::{Event, EventKind};
use assent_proto::field::{Element, Message};
use assent_proto::keys::Algorithm;
use assent_proto::state::{Account, Object};
use assent_proto::transaction::*;
use assent_proto::{AccountId, BodyId, DelegationId, GrantId, InstitutionId, PublicKey, SecretKey, TimeMs};
use clap::{Args, Subcommand};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::context::{Context, Done, confirm, institution_id, text_or_file};
use crate::error::Failure;
use crate::files;
use crate::handle::Question;
use crate::keyfile::{self, Secrets, Settled, secret_key};
use crate::output::Reply;
use crate::persons::{self, AccountArgs, DelegateArgs, RecoverArgs};
use crate::request::AuthorizationRequest;
use crate::rpc::{Node, denial_name};
use crate::store::Offer;
use crate::words::{self, Lang};
use crate::{qr, request};

/// The wallet's commands.
#[derive(Subcommand, Debug)]
pub enum WalletCommand {
    /// Make a new, empty wallet: an encrypted file
    #[command(after_help = "Example:\n  assent wallet new --wallet lin.wallet")]
    New(WalletFile),
    /// Show what the wallet holds; no secrets
    #[command(after_help = "Example:\n  assent wallet show --wallet lin.wallet")]
    Show(WalletFile),
    /// List the accounts, one with each custodian; with --genesis, whether the chain has them
    #[command(after_help = "Example:\n  assent wallet accounts --wallet lin.wallet --genesis genesis.toml")]
    Accounts(WalletFile),
    /// Make a key for an account with a custodian, and ask the bureau to open the account
    #[command(
        after_help = "Example:\n  assent wallet enrol-request --wallet lin.wallet --custodian hospital-a \\\n      \
        --genesis genesis.toml -o lin.enrol\nThe file goes to the bureau's counter, which runs `assent institution enrol`."
    )]
    EnrolRequest {
        #[command(flatten)]
        #[allow(missing_docs)]
        wallet: WalletFile,
        /// The institution that holds the data: short name in the genesis file
        #[arg(long)]
        custodian: String,
        /// The institution that checks the identity
        #[arg(long, default_value = "bureau")]
        enroller: String,
        /// Write the request to this file
        #[arg(short, long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Tell an institution which account it asks for, signed: as text and QR code
    #[command(
        after_help = "Example:\n  assent wallet handle-answer --wallet lin.wallet --genesis genesis.toml \
        --question ASSENT:HQ:…\n  assent wallet handle-answer … --question @question.txt"
    )]
    HandleAnswer {
        #[command(flatten)]
        #[allow(missing_docs)]
        wallet: WalletFile,
        /// The institution's question: the text of its QR code, or @FILE
        #[arg(long)]
        question: String,
        /// Answer without asking
        #[arg(long)]
        yes: bool,
    },
    /// Show in plain words what an institution asks; signs nothing
    #[command(
        after_help = "Example:\n  assent wallet review --request ask.json --lang zh --genesis genesis.toml"
    )]
    Review {
        /// The institution's request
        #[arg(long, value_name = "FILE")]
        request: PathBuf,
    },
    /// Show in plain words what an institution asks, and authorize it
    #[command(
        after_help = "Examples:\n  assent wallet grant --wallet lin.wallet --request ask.json --genesis genesis.toml\n  \
        assent wallet grant --wallet mother.wallet --for DELEGATION --request ask.json --genesis genesis.toml\n\
        The second signs for another, whose account the request names."
    )]
    Grant {
        #[command(flatten)]
        #[allow(missing_docs)]
        wallet: WalletFile,
        /// The institution's request
        #[arg(long, value_name = "FILE")]
        request: PathBuf,
        /// Sign for the person whose data is asked for, by this delegation
        #[arg(long = "for", value_name = "DELEGATION")]
        delegation: Option<DelegationId>,
        /// Sign without asking
        #[arg(long)]
        yes: bool,
    },
    /// Withdraw an authorization
    #[command(
        after_help = "Examples:\n  assent wallet revoke --wallet lin.wallet --grant GRANT --genesis genesis.toml\n  \
        assent wallet revoke --wallet lin.wallet --grant GRANT --custodian hospital-a --genesis genesis.toml\n\
        The second withdraws what may not have come onto the chain yet: if it comes, it is void."
    )]
    Revoke {
        #[command(flatten)]
        #[allow(missing_docs)]
        wallet: WalletFile,
        /// The grant's id
        #[arg(long)]
        grant: GrantId,
        /// The account's custodian, where the grant is not on the chain yet
        #[arg(long)]
        custodian: Option<String>,
    },
    /// Replace an account's key by a new one
    #[command(
        after_help = "Example:\n  assent wallet rotate --wallet lin.wallet --custodian hospital-a --genesis genesis.toml\n\
        The new key is in the wallet before it is sent, the old one until the chain has the new one. If it is\n\
        interrupted, run it again: it goes on where it stopped."
    )]
    Rotate(AccountArgs),
    /// Make a key for an account whose key was lost, and ask an institution to say so
    #[command(after_help = "Example:\n  assent wallet new --wallet new.wallet\n  \
        assent wallet recover-request --wallet new.wallet --account ACCOUNT --institution bureau \\\n      \
        --genesis genesis.toml -o recover.json\n\
        The file, or the QR code, goes to the counter, which runs `assent institution recover`. Run it again for\n\
        each further institution that must say so: the key stays the same. The old key can veto for a time.")]
    RecoverRequest(RecoverArgs),
    /// Stop a recovery that you did not ask for; freezes the account until you were seen in person
    #[command(
        after_help = "Example:\n  assent wallet veto --wallet lin.wallet --custodian hospital-a --genesis genesis.toml"
    )]
    Veto {
        #[command(flatten)]
        #[allow(missing_docs)]
        account: AccountArgs,
        /// Sign without asking
        #[arg(long)]
        yes: bool,
    },
    /// Ask an institution to confirm that one account may grant for another
    #[command(
        after_help = "Examples:\n  assent wallet delegate-request --wallet mother.wallet --as guardian --with CHILD_ACCOUNT \\\n      \
        --purpose treatment --until 2031-04-01 --document birth.pdf --institution bureau -o guardian.json\n  \
        assent wallet delegate-request --wallet grandfather.wallet --as proxy --with DAUGHTER_ACCOUNT \\\n      \
        --purpose claims-payment --until 2027-01-01 --document power.pdf --institution bureau -o proxy.json\n\
        A guardian asks herself; a proxy is asked for by the one who is to be represented. The file goes to the\n\
        counter, which runs `assent institution delegate`."
    )]
    DelegateRequest(DelegateArgs),
    /// List who may grant for whom
    #[command(
        after_help = "Example:\n  assent wallet delegations --wallet lin.wallet --genesis genesis.toml"
    )]
    Delegations(WalletFile),
    /// End a delegation, as the one or the other
    #[command(
        after_help = "Example:\n  assent wallet end-delegation --wallet lin.wallet --delegation DELEGATION --genesis genesis.toml"
    )]
    EndDelegation {
        #[command(flatten)]
        #[allow(missing_docs)]
        wallet: WalletFile,
        /// Which
        #[arg(long)]
        delegation: DelegationId,
    },
    /// Let a grant hold that a delegate signed whose delegation has ended
    #[command(
        after_help = "Example:\n  assent wallet ratify --wallet lin.wallet --grant GRANT --genesis genesis.toml"
    )]
    Ratify {
        #[command(flatten)]
        #[allow(missing_docs)]
        wallet: WalletFile,
        /// The grant's id
        #[arg(long)]
        grant: GrantId,
    },
    /// List who used which data when, with the proof that the list is complete
    #[command(
        after_help = "Example:\n  assent wallet uses --wallet lin.wallet --genesis genesis.toml --export proofs"
    )]
    Uses {
        #[command(flatten)]
        #[allow(missing_docs)]
        wallet: WalletFile,
        /// Of the account with this custodian alone
        #[arg(long)]
        custodian: Option<String>,
        /// Write the proof of each list into this folder
        #[arg(long, value_name = "DIR")]
        export: Option<PathBuf>,
    },
    /// List the authorizations and what became of each
    #[command(after_help = "Example:\n  assent wallet grants --wallet lin.wallet --genesis genesis.toml")]
    Grants(WalletFile),
    /// Check what a custodian says it holds against the chain, and list it
    #[command(
        after_help = "Example:\n  assent wallet records --wallet lin.wallet --offer offer.json --genesis genesis.toml"
    )]
    Records {
        #[command(flatten)]
        #[allow(missing_docs)]
        wallet: WalletFile,
        /// A custodian's offer (`assent custodian offer`)
        #[arg(long, value_name = "FILE", required = true)]
        offer: Vec<PathBuf>,
    },
}

/// Which wallet.
#[derive(Args, Debug, Clone)]
pub struct WalletFile {
    /// The wallet's file
    #[arg(long, value_name = "FILE")]
    pub wallet: PathBuf,
}

/// What the wallet's file holds.
#[derive(Default, Serialize, Deserialize)]
pub struct WalletSecrets {
    accounts: Vec<WalletAccount>,
}

#[derive(Clone, Serialize, Deserialize)]
struct WalletAccount {
    custodian: InstitutionId,
    /// The id that the account has once it is enrolled: that of the signed body.
    account: AccountId,
    /// Seed of its key, 64 hexadecimal digits.
    key: String,
    /// Seed of the key that is to come, from before the chain hears of it until it has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Secrets for WalletSecrets {
    const KIND: &'static str = "assent-wallet";
}

/// What a wallet hands to the enrolling institution: the body that opens the account, and the new key's
/// signature over it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    kind: EnrolRequestKind,
    /// Canonical bytes of the body, in hexadecimal digits.
    body: String,
    /// The second signature, as a wire message in hexadecimal digits.
    signature: String,
}

#[derive(Debug, Serialize, Deserialize)]
enum EnrolRequestKind {
    #[serde(rename = "assent-enrol-request")]
    EnrolRequest,
}

impl EnrolRequest {
    /// From the body and the wallet's signature over it.
    pub fn new(body: &Body, signature: &SignatureEntry) -> Self {
        let signature = hex::encode(signature.write().encode_to_vec());
        EnrolRequest { kind: EnrolRequestKind::EnrolRequest, body: hex::encode(body.encode()), signature }
    }

    /// The body and the wallet's signature, as yet unverified.
    pub fn parts(&self) -> Result<(Body, SignatureEntry), Failure> {
        let bad =
            |why: String| Failure::local("BadRequest", format!("this is not an enrolment request: {why}"));
        let body = hex::decode(&self.body).map_err(|e| bad(e.to_string()))?;
        let body = Body::decode(&body).map_err(|e| bad(e.to_string()))?;
        let signature = hex::decode(&self.signature).map_err(|e| bad(e.to_string()))?;
        let wire = assent_proto::wire::Signature::decode(&signature[..]).map_err(|e| bad(e.to_string()))?;
        Ok((body, SignatureEntry::read(wire, "signature").map_err(|e| bad(e.to_string()))?))
    }
}

/// An open wallet.
pub(crate) struct Wallet {
    path: PathBuf,
    passphrase: SecretString,
    secrets: WalletSecrets,
}

impl Wallet {
    pub(crate) fn open(ctx: &Context, file: &WalletFile) -> Result<Wallet, Failure> {
        let passphrase = ctx.passphrase()?;
        let secrets = keyfile::open(&file.wallet, &passphrase)?;
        Ok(Wallet { path: file.wallet.clone(), passphrase, secrets })
    }

    fn save(&self) -> Result<(), Failure> {
        keyfile::replace(&self.path, &self.secrets, &self.passphrase)
    }

    /// The newest account with a custodian.
    fn with(&self, custodian: &InstitutionId) -> Result<&WalletAccount, Failure> {
        let found = self.secrets.accounts.iter().rev().find(|a| a.custodian == *custodian);
        found.ok_or_else(|| Failure::local("NoSuchAccount", "the wallet has no account with this custodian"))
    }

    fn account(&self, id: &AccountId) -> Result<&WalletAccount, Failure> {
        let found = self.secrets.accounts.iter().find(|a| a.account == *id);
        found.ok_or_else(|| Failure::local("NoSuchAccount", format!("the wallet has no account {id}")))
    }

    fn account_mut(&mut self, id: &AccountId) -> Result<&mut WalletAccount, Failure> {
        let found = self.secrets.accounts.iter_mut().find(|a| a.account == *id);
        found.ok_or_else(|| Failure::local("NoSuchAccount", format!("the wallet has no account {id}")))
    }

    /// Its accounts.
    pub(crate) fn accounts(&self) -> Vec<AccountId> {
        self.secrets.accounts.iter().map(|a| a.account).collect()
    }

    /// The newest account with the custodian that is named; without a name, the only account.
    pub(crate) fn chosen(&self, genesis: &Genesis, custodian: Option<&str>) -> Result<AccountId, Failure> {
        match (custodian, &self.secrets.accounts[..]) {
            (Some(name), _) => Ok(self.with(&institution_id(genesis, name)?)?.account),
            (None, [one]) => Ok(one.account),
            (None, all) => {
                let message = format!("the wallet has {} accounts; name one with --custodian", all.len());
                Err(Failure::local("Usage", message))
            }
        }
    }

    /// The key that signs for an account.
    pub(crate) fn key(&self, id: &AccountId) -> Result<SecretKey, Failure> {
        secret_key(&self.account(id)?.key)
    }

    /// The key that is to come for an account: it is in the file before this returns.
    pub(crate) fn prepare(&mut self, id: &AccountId) -> Result<SecretKey, Failure> {
        let key = keyfile::prepare(&mut self.account_mut(id)?.next)?;
        self.save()?;
        Ok(key)
    }

    /// Takes the key that was to come over once it is the one that the chain has.
    pub(crate) fn settle(&mut self, id: &AccountId, on_chain: &PublicKey) -> Result<Settled, Failure> {
        let account = self.account_mut(id)?;
        let settled = keyfile::settle(&mut account.key, &mut account.next, &[*on_chain])?;
        if settled == Settled::New {
            self.save()?;
        }
        Ok(settled)
    }

    /// The key to which an account is to be recovered: the wallet's own for it, or a fresh one that is in the file
    /// before this returns.
    pub(crate) fn recovering(
        &mut self,
        id: &AccountId,
        custodian: InstitutionId,
    ) -> Result<SecretKey, Failure> {
        if self.account(id).is_err() {
            let key = hex::encode(files::random_32());
            self.secrets.accounts.push(WalletAccount { custodian, account: *id, key, next: None });
            self.save()?;
        }
        self.key(id)
    }
}

/// Runs one.
pub fn run(ctx: &Context, command: &WalletCommand) -> Result<Reply, Failure> {
    match command {
        WalletCommand::New(file) => new(ctx, &file.wallet),
        WalletCommand::Show(file) => show(ctx, file),
        WalletCommand::Accounts(file) => accounts(ctx, file),
        WalletCommand::EnrolRequest { wallet, custodian, enroller, out } => {
            enrol_request(ctx, wallet, custodian, enroller, out.as_deref())
        }
        WalletCommand::HandleAnswer { wallet, question, yes } => handle_answer(ctx, wallet, question, *yes),
        WalletCommand::Review { request } => review(ctx, request),
        WalletCommand::Grant { wallet, request, delegation, yes } => {
            grant(ctx, wallet, request, *delegation, *yes)
        }
        WalletCommand::Rotate(args) => persons::rotate(ctx, args),
        WalletCommand::RecoverRequest(args) => persons::recover_request(ctx, args),
        WalletCommand::Veto { account, yes } => persons::veto(ctx, account, *yes),
        WalletCommand::DelegateRequest(args) => persons::delegate_request(ctx, args),
        WalletCommand::Delegations(file) => persons::delegations(ctx, file),
        WalletCommand::EndDelegation { wallet, delegation } => {
            persons::end_delegation(ctx, wallet, *delegation)
        }
        WalletCommand::Ratify { wallet, grant } => persons::ratify(ctx, wallet, *grant),
        WalletCommand::Revoke { wallet, grant, custodian } => {
            revoke(ctx, wallet, *grant, custodian.as_deref())
        }
        WalletCommand::Uses { wallet, custodian, export } => {
            uses(ctx, wallet, custodian.as_deref(), export.as_deref())
        }
        WalletCommand::Grants(file) => grants(ctx, file),
        WalletCommand::Records { wallet, offer } => records(ctx, wallet, offer),
    }
}

fn new(ctx: &Context, path: &Path) -> Result<Reply, Failure> {
    keyfile::create(path, &WalletSecrets::default(), &ctx.new_passphrase()?)?;
    Ok(Reply::new(json!({ "wallet": path }), format!("new wallet in {}", path.display())))
}

fn show(ctx: &Context, file: &WalletFile) -> Result<Reply, Failure> {
    let wallet = Wallet::open(ctx, file)?;
    let n = wallet.secrets.accounts.len();
    Ok(Reply::new(
        json!({ "wallet": file.wallet, "accounts": n }),
        format!("{}: {n} accounts", file.wallet.display()),
    ))
}

fn accounts(ctx: &Context, file: &WalletFile) -> Result<Reply, Failure> {
    let wallet = Wallet::open(ctx, file)?;
    let mut chain = ctx.genesis.is_some().then(|| ctx.connect()).transpose()?;
    let (mut list, mut text) = (Vec::new(), String::new());
    for a in &wallet.secrets.accounts {
        let key = secret_key(&a.key)?.public();
        let on_chain = match &mut chain {
            Some((_, node)) => Some(node.account(a.account)?),
            None => None,
        };
        let standing = on_chain.map(|c| standing(c.as_ref(), &key));
        let enrolled = standing.map(|s| s != "not-enrolled" && s != "key-replaced");
        let custodian = chain
            .as_ref()
            .map(|(g, _)| words::slug(g, &a.custodian))
            .unwrap_or_else(|| a.custodian.to_string());
        text += &format!("{custodian}  {}  {}\n", a.account, standing.unwrap_or_default());
        list.push(json!({ "custodian": custodian, "custodian_id": a.custodian, "account": a.account, "key": key, "enrolled": enrolled, "standing": standing }));
    }
    Ok(Reply::new(json!({ "accounts": list }), text))
}

/// How an account stands on the chain, for the holder of a key.
fn standing(account: Option<&(Account, TimeMs)>, key: &PublicKey) -> &'static str {
    match account {
        None => "not-enrolled",
        Some((a, _)) if a.frozen => "frozen",
        Some((a, time)) if a.key_at(*time) != *key => match &a.recovery {
            Some(r) if r.key == *key => "being-recovered-by-this-wallet",
            _ => "key-replaced",
        },
        // Its key counts already; nobody has written it down yet.
        Some((a, time)) if a.recovery.as_ref().is_some_and(|r| r.ready_at.is_none_or(|at| at > *time)) => {
            "being-recovered-by-another"
        }
        Some(_) => "enrolled",
    }
}

/// The wallet builds and signs the whole body, so that the account's id is known to both sides at once and
/// the signature proves possession of the key for just this enrolment.
fn enrol_request(
    ctx: &Context,
    file: &WalletFile,
    custodian: &str,
    enroller: &str,
    out: Option<&Path>,
) -> Result<Reply, Failure> {
    if let Some(taken) = out.filter(|o| o.exists()) {
        return Err(Failure::local(
            "FileExists",
            format!("{}: exists already, and is not overwritten", taken.display()),
        ));
    }
    let genesis = ctx.genesis()?;
    let (custodian, enroller) = (institution_id(&genesis, custodian)?, institution_id(&genesis, enroller)?);
    let mut wallet = Wallet::open(ctx, file)?;
    let seed = files::random_32();
    let key = SecretKey::from_bytes(&seed);
    let action = Action::Enrol(Enrol { custodian, algorithm: Algorithm::Ed25519, key: key.public() });
    let body = ctx.body(&genesis, Author::Institution(enroller), action);
    let bytes = body.encode();
    let account = AccountId(body_id(&genesis.hash(), &bytes).0);
    wallet.secrets.accounts.push(WalletAccount { custodian, account, key: hex::encode(seed), next: None });
    wallet.save()?;

    let request = EnrolRequest::new(&body, &SignatureEntry::sign(&genesis.hash(), &key, &bytes));
    let request = serde_json::to_value(&request).expect("a request is plain data");
    if let Some(out) = out {
        files::create(out, request.to_string().as_bytes())?;
    }
    let text = format!(
        "account {account}, to be opened before {}\n{}",
        words::show_time(body.expires_at),
        if out.is_some() { String::new() } else { request.to_string() }
    );
    Ok(Reply::new(json!({ "account": account, "expires_at": body.expires_at, "request": request }), text))
}

fn handle_answer(ctx: &Context, file: &WalletFile, question: &str, yes: bool) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let question = Question::parse(&genesis, &text_or_file(question)?)?;
    question.asked_by(&operators(&mut node, &question.institution)?)?;
    if question.expires_at < words::now() {
        return Err(Failure::local("BadQuestion", "the question has expired; ask for a new one"));
    }
    let wallet = Wallet::open(ctx, file)?;
    let account = wallet.with(&question.custodian)?;
    let asker = words::institution(&genesis, &question.institution, ctx.lang);
    let custodian = words::institution(&genesis, &question.custodian, ctx.lang);
    let purpose = words::purpose(question.purpose, ctx.lang);
    let told = match ctx.lang {
        Lang::En => format!("{asker} learns your account number with {custodian}, for: {purpose}"),
        Lang::Zh => format!("{asker}将获知您在{custodian}的账户编号，用途：{purpose}"),
    };
    if !yes && !confirm(&format!("{told}?"))? {
        return Err(Failure::local("NotConfirmed", "nothing was answered"));
    }
    let answer = question.answer(&genesis, &account.account, &secret_key(&account.key)?);
    let qr = qr::picture(&answer)?;
    let json = json!({ "answer": answer, "account": account.account, "institution": words::slug(&genesis, &question.institution) });
    Ok(Reply::new(json, format!("{told}\n{qr}\n{answer}")).with("qr", qr))
}

fn review(ctx: &Context, path: &Path) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let request: AuthorizationRequest = files::read_json(path)?;
    let terms = checked(&genesis, &mut node, &request)?;
    let (terms, notice) = shown(ctx, &genesis, &mut node, &request, terms)?;
    let json = json!({ "notice": notice, "notice_hash": words::notice_hash(&notice), "terms": terms, "account": request.account });
    Ok(Reply::new(json, notice))
}

/// What the institution asks, once it is certain that it does: by a key that the chain has of it now.
fn checked(genesis: &Genesis, node: &mut Node, request: &AuthorizationRequest) -> Result<Grant, Failure> {
    request.check(genesis, |id| operators(node, id))
}

/// The keys by which an institution may sign now.
pub(crate) fn operators(node: &mut Node, id: &InstitutionId) -> Result<Vec<PublicKey>, Failure> {
    let seen = node.object((*id).into())?;
    let Some(Object::Institution(i)) = seen.object else { return Ok(Vec::new()) };
    let valid = i.keys.iter().filter(|k| (k.not_before..=k.not_after).contains(&seen.time));
    Ok(valid.map(|k| k.key).collect())
}

/// The terms as they would be signed, and the notice: both made from the request, the chain and the genesis
/// file.
fn shown(
    ctx: &Context,
    genesis: &Genesis,
    node: &mut Node,
    request: &AuthorizationRequest,
    terms: Grant,
) -> Result<(Grant, String), Failure> {
    let items = request::items(node, &terms)?;
    let notice = words::notice(genesis, &request.account, &terms, &items, ctx.lang);
    Ok((words::with_notice(&terms, &notice, ctx.lang), notice))
}

fn grant(
    ctx: &Context,
    file: &WalletFile,
    path: &Path,
    delegation: Option<DelegationId>,
    yes: bool,
) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let request: AuthorizationRequest = files::read_json(path)?;
    let wallet = Wallet::open(ctx, file)?;
    let terms = checked(&genesis, &mut node, &request)?;
    let (account, terms) = match delegation {
        None => (wallet.account(&request.account)?, terms),
        Some(id) => {
            let found = persons::delegation(&mut node, id)?;
            if found.ward != request.account {
                let message = "the request is for another's data than the delegation";
                return Err(Failure::local("NotTheDelegate", message));
            }
            let terms = Grant { capacity: found.capacity, delegation: Some(id), ..terms };
            (wallet.account(&found.delegate)?, terms)
        }
    };
    let (terms, notice) = shown(ctx, &genesis, &mut node, &request, terms)?;
    if !yes {
        eprintln!("{notice}\n");
        if !confirm(ctx.lang.pick("Do you authorize this?", "您是否授权？"))? {
            return Err(Failure::local("NotConfirmed", "nothing was signed"));
        }
    }
    let body = ctx.body(&genesis, Author::Account(account.account), Action::Grant(Box::new(terms)));
    let done = ctx.send(&genesis, &mut node, &body, &[&secret_key(&account.key)?])?;
    Ok(done.reply(ctx.lang).with("grant", done.done.tx.body_id()).with("notice", notice))
}

fn revoke(
    ctx: &Context,
    file: &WalletFile,
    grant: GrantId,
    custodian: Option<&str>,
) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let wallet = Wallet::open(ctx, file)?;
    let account = match (node.object(grant.into())?.object, custodian) {
        (Some(Object::Grant(g)), _) => wallet.account(&g.account).or_else(|_| wallet.account(&g.signer))?,
        (_, Some(custodian)) => wallet.with(&institution_id(&genesis, custodian)?)?,
        (_, None) => {
            let message =
                format!("{grant} is not on the chain; with --custodian it can be withdrawn beforehand");
            return Err(Failure::local("NoSuchGrant", message));
        }
    };
    let body = ctx.body(&genesis, Author::Account(account.account), Action::Revoke(Revoke { grant }));
    let done: Done = ctx.send(&genesis, &mut node, &body, &[&secret_key(&account.key)?])?;
    Ok(done.reply(ctx.lang).with("grant", grant))
}

fn uses(
    ctx: &Context,
    file: &WalletFile,
    custodian: Option<&str>,
    export: Option<&Path>,
) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let wallet = Wallet::open(ctx, file)?;
    let only = custodian.map(|c| institution_id(&genesis, c)).transpose()?;
    if let Some(dir) = export {
        std::fs::create_dir_all(dir).map_err(|e| Failure::file(dir, e))?;
    }
    let (mut lists, mut text) = (Vec::new(), String::new());
    for a in wallet.secrets.accounts.iter().filter(|a| only.is_none_or(|o| o == a.custodian)) {
        let Some(trail) = node.trail(a.account.into())? else { continue };
        let held_by = words::institution(&genesis, &a.custodian, ctx.lang);
        text += &format!(
            "{held_by}: {} {} {} ({})\n",
            trail.events.len(),
            ctx.lang.pick("events, all there are up to block", "个事件，完整至区块"),
            trail.height,
            words::show_time(trail.time)
        );
        let events: Vec<_> = trail.events.iter().map(|e| use_of(&genesis, e, ctx.lang)).collect();
        events.iter().for_each(|(_, line)| text += &format!("  {line}\n"));
        let proof =
            export.map(|dir| dir.join(format!("uses-{}.evidence", words::slug(&genesis, &a.custodian))));
        if let Some(proof) = &proof {
            files::replace(proof, &trail.evidence)?;
        }
        lists.push(json!({
            "custodian": words::slug(&genesis, &a.custodian),
            "account": a.account,
            "complete_to_height": trail.height,
            "as_of": trail.time,
            "events": events.into_iter().map(|(json, _)| json).collect::<Vec<_>>(),
            "evidence": proof,
        }));
    }
    Ok(Reply::new(json!({ "accounts": lists }), text))
}

/// One event of a person's trail, as JSON and as a line.
fn use_of(genesis: &Genesis, event: &Event, lang: Lang) -> (Value, String) {
    let core = &event.core;
    let by = match &core.author {
        Author::Institution(id) => words::institution(genesis, id, lang),
        Author::Account(_) => lang.pick("you", "您本人").to_owned(),
    };
    let code_name = if core.code == 0 { String::new() } else { denial_name(core.code) };
    let line = format!("{}  {by}: {}", words::show_time(core.time), words::happened(core, lang));
    let slug = match &core.author {
        Author::Institution(id) => words::slug(genesis, id),
        Author::Account(_) => "you".to_owned(),
    };
    let json = json!({
        "height": core.height, "time": core.time, "by": slug, "kind": core.kind, "action": core.action,
        "code": core.code, "code_name": code_name, "body_id": core.body,
    });
    (json, line)
}

fn grants(ctx: &Context, file: &WalletFile) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let wallet = Wallet::open(ctx, file)?;
    let (mut list, mut text) = (Vec::new(), String::new());
    for a in &wallet.secrets.accounts {
        let Some(trail) = node.trail(a.account.into())? else { continue };
        let granted = trail.events.iter().filter(|e| e.core.kind == EventKind::Granted);
        for grant in granted.map(|e| GrantId(e.core.object.id)).collect::<Vec<_>>() {
            let Some(Object::Grant(g)) = node.object(grant.into())?.object else { continue };
            let grantee = words::slug(&genesis, &g.terms.grantee);
            let revoked = g.revocation.as_ref().map(|r| r.height);
            text += &format!(
                "{grant}  {grantee}  used {}{}\n",
                g.used,
                if revoked.is_some() { ", withdrawn" } else { "" }
            );
            list.push(json!({
                "grant": grant, "account": a.account, "grantee": grantee, "purpose": g.terms.purpose, "mode": g.terms.mode,
                "signer": g.signer, "capacity": g.terms.capacity, "ratified": g.ratified,
                "used": g.used, "delivered": g.delivered, "revoked_height": revoked, "erased_height": g.erased_height,
            }));
        }
    }
    Ok(Reply::new(json!({ "grants": list }), text))
}

fn records(ctx: &Context, file: &WalletFile, offers: &[PathBuf]) -> Result<Reply, Failure> {
    let (_, mut node) = ctx.connect()?;
    let wallet = Wallet::open(ctx, file)?;
    let (mut list, mut text) = (Vec::new(), String::new());
    for path in offers {
        let offer: Offer = files::read_json(path)?;
        for r in &offer.records {
            wallet.account(&r.account)?;
            let Some(Object::Batch(batch)) = node.object(r.batch.into())?.object else {
                return Err(Failure::Proof(format!("{}: its batch is not on the chain", r.reference)));
            };
            if !r.stands_in(&batch.root, batch.count) {
                return Err(Failure::Proof(format!("{}: is not in the batch that it names", r.reference)));
            }
            text += &format!("{}  {}\n", words::show_day(r.day), r.reference);
            list.push(json!({ "reference": r.reference, "account": r.account, "day": words::show_day(r.day), "commitment": r.commitment, "anchored_height": batch.height }));
        }
    }
    Ok(Reply::new(json!({ "records": list }), text))
}

/// The id that a body has on a chain, for those who hold a request.
pub fn account_of(genesis: &Genesis, body: &Body) -> AccountId {
    let id: BodyId = body_id(&genesis.hash(), &body.encode());
    AccountId(id.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use assent_proto::field::List;
    use assent_proto::state::Recovery;
    use assent_proto::{Hash, Height};

    fn wallet(dir: &Path) -> Wallet {
        let path = dir.join("lin.wallet");
        let passphrase = SecretString::from("x".to_owned());
        keyfile::create(&path, &WalletSecrets::default(), &passphrase).unwrap();
        Wallet { path, passphrase, secrets: WalletSecrets::default() }
    }

    /// As the next run of the program finds it.
    fn again(wallet: &Wallet) -> Wallet {
        let secrets = keyfile::open(&wallet.path, &wallet.passphrase).unwrap();
        Wallet { path: wallet.path.clone(), passphrase: wallet.passphrase.clone(), secrets }
    }

    fn custodian() -> InstitutionId {
        assent_genesis::institution_id("hospital-a")
    }

    #[test]
    fn r16_a_rotation_that_stops_anywhere_loses_no_key_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut wallet = wallet(dir.path());
        let id = AccountId(Hash([1; 32]));
        let old = wallet.recovering(&id, custodian()).unwrap().public();
        let new = wallet.prepare(&id).unwrap().public();

        let mut before = again(&wallet);
        assert_eq!(before.settle(&id, &old).unwrap(), Settled::Old);
        assert_eq!(
            before.key(&id).unwrap().public(),
            old,
            "the old key signs until the chain has the new one"
        );
        assert_eq!(before.prepare(&id).unwrap().public(), new, "the same again, not a third");

        let mut foreign = again(&wallet);
        let other = SecretKey::from_bytes(&[9; 32]).public();
        assert_eq!(foreign.settle(&id, &other).unwrap_err().name(), "KeyReplaced");

        let mut after = again(&wallet);
        assert_eq!(after.settle(&id, &new).unwrap(), Settled::New);
        let done = again(&after);
        assert_eq!(done.key(&id).unwrap().public(), new);
        assert!(done.secrets.accounts[0].next.is_none());
    }

    #[test]
    fn r16_a_recovery_keeps_its_key_from_one_institution_to_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let mut wallet = wallet(dir.path());
        let id = AccountId(Hash([1; 32]));
        let key = wallet.recovering(&id, custodian()).unwrap().public();
        assert_eq!(again(&wallet).recovering(&id, custodian()).unwrap().public(), key);
        assert_eq!(again(&wallet).accounts(), [id]);
    }

    #[test]
    fn r16_a_wallet_tells_how_its_accounts_stand() {
        let (own, other) =
            (SecretKey::from_bytes(&[1; 32]).public(), SecretKey::from_bytes(&[2; 32]).public());
        let plain = Account {
            enroller: assent_genesis::institution_id("bureau"),
            custodian: custodian(),
            algorithm: Algorithm::Ed25519,
            key: own,
            enrolled_height: Height(1),
            early: List::empty(),
            recovery: None,
            frozen: false,
            guardianships: List::empty(),
        };
        let to = |key, ready_at: Option<u64>| Account {
            recovery: Some(Recovery {
                algorithm: Algorithm::Ed25519,
                key,
                in_person: false,
                approvals: List::empty(),
                until: TimeMs(9),
                ready_at: ready_at.map(TimeMs),
            }),
            ..plain.clone()
        };
        let told = |account: Account, key: &_| standing(Some(&(account, TimeMs(5))), key);
        assert_eq!(standing(None, &own), "not-enrolled");
        assert_eq!(told(plain.clone(), &own), "enrolled");
        assert_eq!(told(plain.clone(), &other), "key-replaced");
        assert_eq!(told(Account { frozen: true, ..plain.clone() }, &own), "frozen");
        assert_eq!(told(to(other, None), &own), "being-recovered-by-another");
        assert_eq!(told(to(other, Some(6)), &own), "being-recovered-by-another");
        assert_eq!(told(to(other, Some(6)), &other), "being-recovered-by-this-wallet");
        assert_eq!(told(to(other, Some(5)), &other), "enrolled", "time alone has done it");
        assert_eq!(told(to(other, Some(5)), &own), "key-replaced");
    }
}
