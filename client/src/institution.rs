//! What an institution does, as commands, and the small ones among them: keys, its founding piece, enrolment,
//! handles, the catalogue. Anchoring, access and lineage have files of their own.

use std::path::{Path, PathBuf};

use assent_genesis::{Admission, Genesis, Operator, Profile, ValidatorPiece};
use assent_proto::envelope::signing_message;
use assent_proto::field::{List, Message};
use assent_proto::state::Account;
use assent_proto::transaction::*;
use assent_proto::{
    CaseId, DelegationId, Envelope, GrantId, Hash, InstitutionId, ItemId, PermitId, PublicKey, TimeMs, hash,
};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::access::{self, AskArgs, RequestArgs};
use crate::activity::{self, ActivityArgs};
use crate::anchor::{self, AnchorArgs};
use crate::context::{Context, Done, institution_id, text_or_file};
use crate::error::Failure;
use crate::files;
use crate::handle::Question;
use crate::keyfile::{self, InstitutionSecrets};
use crate::office::{self, Described, JoinArgs, RequestFile, RotateArgs};
use crate::orders::{self, OrderArgs};
use crate::output::Reply;
use crate::qr;
use crate::wallet::{self, EnrolRequest};
use crate::words::{self, named};

/// Which institution acts.
#[derive(Args, Debug, Clone)]
pub struct Keys {
    /// The institution's key file
    #[arg(long, value_name = "FILE")]
    pub keyfile: PathBuf,
}

/// The institution's commands.
#[derive(Subcommand, Debug)]
pub enum InstitutionCommand {
    /// Make the institution's keys: the operator key that signs for it, the age identity that opens packages
    #[command(after_help = "Example:\n  assent institution keygen --slug hospital-a --keyfile operator.age")]
    Keygen {
        #[command(flatten)]
        #[allow(missing_docs)]
        keys: Keys,
        /// Its short name in the genesis file
        #[arg(long)]
        slug: String,
    },
    /// Sign the institution's public piece of a founding: its profile, keys and validators
    #[command(
        after_help = "Example:\n  assent institution admission --keyfile operator.age --chain-id yantai-1 \\\n      \
        --name-en 'Hospital A' --name-zh 第一医院 --role hospital \\\n      \
        --not-before 2026-12-01 --not-after 2029-12-31 --validator node.toml -o hospital-a.toml\n\
        The validator pieces come from `assentd init` on the nodes."
    )]
    Admission(AdmissionArgs),
    /// Sign the institution's public piece for a chain that runs: what is to be known of it, and its keys
    #[command(
        after_help = "Example:\n  assent institution join-piece --keyfile operator.age --genesis genesis.toml --role hospital \\\n      \
        --not-before 2026-12-01 --not-after 2029-12-31 -o hospital-z.toml\n\
        Who runs a validator proposes it: `assent govern propose institution`."
    )]
    JoinPiece(JoinArgs),
    /// Show the institution's public keys
    #[command(after_help = "Example:\n  assent institution show --keyfile operator.age")]
    Show(Keys),
    /// Open an account for a person whose identity was checked (`assent wallet enrol-request`)
    #[command(
        after_help = "Example:\n  assent institution enrol --keyfile operator.age --request lin.enrol --genesis genesis.toml"
    )]
    Enrol {
        #[command(flatten)]
        #[allow(missing_docs)]
        keys: Keys,
        /// The wallet's request
        #[arg(long, value_name = "FILE")]
        request: PathBuf,
    },
    /// Say that a person who lost her key holds a new one, after her identity was checked (`assent wallet recover-request`)
    #[command(
        after_help = "Example:\n  assent institution recover --keyfile operator.age --request recover.json --genesis genesis.toml\n\
        So many institutions as the parameters ask for must say so, the one that opened the account among them.\n\
        The old key can veto for a time; then the account is frozen, and recovered across a counter alone."
    )]
    Recover(RequestFile),
    /// Confirm that one person may grant for another, after the papers were checked (`assent wallet delegate-request`)
    #[command(
        after_help = "Example:\n  assent institution delegate --keyfile operator.age --request guardian.json --genesis genesis.toml"
    )]
    Delegate(RequestFile),
    /// End a delegation by death or by a court's decision
    #[command(
        after_help = "Example:\n  assent institution end-delegation --keyfile operator.age --delegation DELEGATION --cause death"
    )]
    EndDelegation {
        #[command(flatten)]
        #[allow(missing_docs)]
        keys: Keys,
        /// Which
        #[arg(long)]
        delegation: DelegationId,
        /// death, court
        #[arg(long, value_parser = named::<DelegationEnd>)]
        cause: DelegationEnd,
    },
    /// Ask a person for her handle with a custodian: text and QR code for her wallet
    #[command(
        after_help = "Example:\n  assent institution ask-handle --keyfile operator.age --custodian hospital-a \\\n      \
        --purpose claims-payment --genesis genesis.toml\n\
        The person answers with `assent wallet handle-answer`."
    )]
    AskHandle {
        #[command(flatten)]
        #[allow(missing_docs)]
        keys: Keys,
        /// The custodian
        #[arg(long)]
        custodian: String,
        /// What for
        #[arg(long, value_parser = named::<Purpose>)]
        purpose: Purpose,
    },
    /// Check a wallet's answer against the account's key on the chain
    #[command(
        after_help = "Example:\n  assent institution check-handle --question @question.txt --answer ASSENT:HA:… \\\n      \
        --genesis genesis.toml"
    )]
    CheckHandle {
        /// The question that was asked: text or @FILE
        #[arg(long)]
        question: String,
        /// The wallet's answer: text or @FILE
        #[arg(long)]
        answer: String,
    },
    /// Enter an item into the resource catalogue, as its one source
    #[command(
        after_help = "Example:\n  assent institution register-item --keyfile operator.age --code 101 --scope 1 \\\n      \
        --category claim-document --level high --opening prohibited"
    )]
    RegisterItem {
        #[command(flatten)]
        #[allow(missing_docs)]
        keys: Keys,
        /// Item code of the catalogue standard
        #[arg(long)]
        code: u32,
        /// Whose data the code speaks of
        #[arg(long)]
        scope: u32,
        /// claim-document, test-result, encounter, settlement, prescription
        #[arg(long, value_parser = named::<Category>)]
        category: Category,
        #[command(flatten)]
        #[allow(missing_docs)]
        class: Class,
    },
    /// Grade an item anew
    #[command(
        after_help = "Example:\n  assent institution classify --keyfile operator.age --item ITEM --level moderate \\\n      \
        --opening directed --recipient insurer"
    )]
    Classify {
        #[command(flatten)]
        #[allow(missing_docs)]
        keys: Keys,
        /// The item
        #[arg(long)]
        item: ItemId,
        #[command(flatten)]
        #[allow(missing_docs)]
        class: Class,
    },
    /// Anchor records by salted commitments, in batches; the salts stay in the store
    #[command(
        after_help = "Example:\n  assent institution anchor --keyfile operator.age --item ITEM \\\n      --records claims.ndjson \
        --resource-type Claim --accounts accounts.json --store records.store\n\
        accounts.json maps FHIR subjects to accounts: {\"Patient/…\": \"64 hexadecimal digits\"}"
    )]
    Anchor(AnchorArgs),
    /// Ask a person for an authorization: a file for her wallet
    #[command(
        after_help = "Example:\n  assent institution ask --keyfile operator.age --account ACCOUNT --item ITEM \\\n      --case CASE \
        --purpose claims-payment --action read --not-after 2026-12-31 -o ask.json"
    )]
    Ask(AskArgs),
    /// Request access to records: a permit or a coded denial
    #[command(
        after_help = "Example:\n  assent institution request --keyfile operator.age --grant GRANT --offer offer.json \\\n      \
        --purpose claims-payment --action read --case CASE\n  \
        assent institution request --keyfile operator.age --emergency unconscious --offer offer.json\n  \
        assent institution request --keyfile operator.age --order ORDER --offer offer.json\nExit 3 when denied."
    )]
    Request(RequestArgs),
    /// Open a package and check each record against its anchored commitment
    #[command(
        after_help = "Example:\n  assent institution open --keyfile operator.age --package claim.package -o claim.ndjson --genesis genesis.toml"
    )]
    Open {
        #[command(flatten)]
        #[allow(missing_docs)]
        keys: Keys,
        /// The package
        #[arg(long, value_name = "FILE")]
        package: PathBuf,
        /// Write the records to this file, one a line
        #[arg(short, long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Keep the records with their proofs in this store
        #[arg(long, value_name = "FILE")]
        store: Option<PathBuf>,
    },
    /// Attest that what was received under a revoked grant is erased, or that the law keeps it in storage
    #[command(
        after_help = "Examples:\n  assent institution attest-erasure --keyfile operator.age --grant GRANT --report erased.pdf\n  \
        assent institution attest-erasure --keyfile operator.age --grant GRANT --report hold.pdf \\\n      \
        --hold litigation --until 2027-12-31\nThe duty stays then, and is due at the end of the hold."
    )]
    AttestErasure {
        #[command(flatten)]
        #[allow(missing_docs)]
        keys: Keys,
        /// The grant
        #[arg(long)]
        grant: GrantId,
        /// The erasure report, of which the chain gets the hash
        #[arg(long, value_name = "FILE")]
        report: PathBuf,
        /// It is kept in storage and used for nothing: statutory-retention, litigation, investigation
        #[arg(long, value_name = "REASON", requires = "until", value_parser = named::<HoldReason>)]
        hold: Option<HoldReason>,
        /// Until when it is kept
        #[arg(long, value_name = "TIME", requires = "hold", value_parser = words::time)]
        until: Option<TimeMs>,
    },
    /// Draft a legal order: the court or regulator signs first, another institution second
    #[command(
        after_help = "Example:\n  assent institution order --keyfile court.age --basis court --document order.pdf \\\n      \
        --beneficiary insurer --cosigner regulator --account ACCOUNT --category settlement \\\n      \
        --not-after 2027-03-31 --expires-in 600 -o order.draft\n\
        The draft goes to the other (`assent institution cosign`), then onto the chain (`assent institution submit`)\n\
        before --expires-in has passed."
    )]
    Order(OrderArgs),
    /// Sign second what another institution has drafted, after it was shown in words
    #[command(
        after_help = "Example:\n  assent institution cosign --keyfile regulator.age --draft order.draft --genesis genesis.toml -o order.signed"
    )]
    Cosign {
        #[command(flatten)]
        #[allow(missing_docs)]
        keys: Keys,
        /// The draft
        #[arg(long, value_name = "FILE|TEXT")]
        draft: String,
        /// Where to write it with both signatures
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
        /// Sign without asking
        #[arg(long)]
        yes: bool,
    },
    /// Submit what two institutions have signed; needs no key
    #[command(
        after_help = "Example:\n  assent institution submit --draft order.signed --genesis genesis.toml"
    )]
    Submit {
        /// The draft, signed by both
        #[arg(long, value_name = "FILE|TEXT")]
        draft: String,
    },
    /// Review a use in an emergency, as the regulator
    #[command(
        after_help = "Example:\n  assent institution review-emergency --keyfile regulator.age --permit PERMIT --verdict justified"
    )]
    ReviewEmergency {
        #[command(flatten)]
        #[allow(missing_docs)]
        keys: Keys,
        /// The use
        #[arg(long)]
        permit: PermitId,
        /// justified, good-faith, abuse
        #[arg(long, value_parser = named::<Verdict>)]
        verdict: Verdict,
    },
    /// Put on record that the person was told of a use in an emergency or by legal order
    #[command(
        after_help = "Example:\n  assent institution notify-person --keyfile operator.age --permit PERMIT --notice letter.pdf"
    )]
    NotifyPerson {
        #[command(flatten)]
        #[allow(missing_docs)]
        keys: Keys,
        /// The use
        #[arg(long)]
        permit: PermitId,
        /// What she was told, of which the chain gets the hash
        #[arg(long, value_name = "FILE")]
        notice: PathBuf,
    },
    /// Replace the institution's operator key by a new one
    #[command(
        after_help = "Example:\n  assent institution rotate-operator --keyfile operator.age --not-after 2029-12-31 --genesis genesis.toml\n\
        The new key is in the key file before it is sent, the old one until the chain has the new one. If it is\n\
        interrupted, run it again: it goes on where it stopped."
    )]
    RotateOperator(RotateArgs),
    /// Retire one of the institution's keys, signed by another
    #[command(
        after_help = "Example:\n  assent institution retire-operator --keyfile operator.age --key KEY --genesis genesis.toml"
    )]
    RetireOperator {
        #[command(flatten)]
        #[allow(missing_docs)]
        keys: Keys,
        /// The public key, 64 hexadecimal digits
        #[arg(long, value_parser = public_key)]
        key: PublicKey,
    },
    /// Record what was made of what
    #[command(
        after_help = "Example:\n  assent institution activity --keyfile operator.age --kind aggregate --artifact A1 \\\n      \
        --plan plan.sql --product low:mean-by-district --exclude DENIED_REQUEST"
    )]
    Activity(ActivityArgs),
    /// Review a use that an opening makes conditional on it
    #[command(
        after_help = "Example:\n  assent institution review --keyfile operator.age --item ITEM --requester insurer \\\n      \
        --purpose statistics --until 2026-12-31"
    )]
    Review {
        #[command(flatten)]
        #[allow(missing_docs)]
        keys: Keys,
        /// The item
        #[arg(long)]
        item: ItemId,
        /// Who may use it
        #[arg(long)]
        requester: String,
        /// For what
        #[arg(long, value_parser = named::<Purpose>)]
        purpose: Purpose,
        /// Until when
        #[arg(long, value_parser = words::time)]
        until: TimeMs,
    },
}

/// How an item is graded.
#[derive(Args, Debug, Clone)]
pub struct Class {
    /// none, low, moderate, high
    #[arg(long, value_parser = named::<Level>)]
    pub level: Level,
    /// prohibited, after-review, real-name, unconditional, directed
    #[arg(long, value_parser = named::<Opening>)]
    pub opening: Opening,
    /// A recipient of a directed opening; may be repeated
    #[arg(long = "recipient", value_name = "INSTITUTION")]
    pub recipients: Vec<String>,
}

/// A founding piece.
#[derive(Args, Debug)]
pub struct AdmissionArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: Keys,
    /// The chain's name
    #[arg(long)]
    pub chain_id: String,
    /// English name
    #[arg(long)]
    pub name_en: String,
    /// Chinese name
    #[arg(long)]
    pub name_zh: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub described: Described,
    /// A node's piece (`assentd init`); may be repeated
    #[arg(long = "validator", value_name = "FILE")]
    pub validators: Vec<PathBuf>,
    /// Where to write it
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
}

/// The one matter that an authorization is for.
#[derive(Subcommand, Debug)]
pub enum CaseCommand {
    /// Make a commitment to a case; keep the salt, pass the commitment on
    #[command(after_help = "Example:\n  assent case new --label 2026-000123")]
    New {
        /// The case's number or name; stays off chain
        #[arg(long, default_value = "")]
        label: String,
    },
}

/// Runs a case command.
pub fn run_case(command: &CaseCommand) -> Result<Reply, Failure> {
    let CaseCommand::New { label } = command;
    let salt = Hash(files::random_32());
    let case = CaseId(hash::commit(&salt.0, "case", label.as_bytes()));
    Ok(Reply::new(
        json!({ "case": case, "salt": salt }),
        format!("case {case}\nsalt {salt} (keep it; it is not needed on the chain)"),
    ))
}

/// Runs one.
pub fn run(ctx: &Context, command: &InstitutionCommand) -> Result<Reply, Failure> {
    match command {
        InstitutionCommand::Keygen { keys, slug } => {
            let secrets = InstitutionSecrets::generate(slug);
            keyfile::create(&keys.keyfile, &secrets, &ctx.new_passphrase()?)?;
            show(&secrets)
        }
        InstitutionCommand::Admission(args) => admission(ctx, args),
        InstitutionCommand::Show(keys) => show(&ctx.institution(&keys.keyfile)?),
        InstitutionCommand::Enrol { keys, request } => enrol(ctx, keys, request),
        InstitutionCommand::AskHandle { keys, custodian, purpose } => {
            ask_handle(ctx, keys, custodian, *purpose)
        }
        InstitutionCommand::CheckHandle { question, answer } => check_handle(ctx, question, answer),
        InstitutionCommand::RegisterItem { keys, code, scope, category, class } => {
            register_item(ctx, keys, *code, *scope, *category, class)
        }
        InstitutionCommand::Classify { keys, item, class } => classify(ctx, keys, *item, class),
        InstitutionCommand::Anchor(args) => anchor::anchor(ctx, args),
        InstitutionCommand::Ask(args) => access::ask(ctx, args),
        InstitutionCommand::Request(args) => access::request(ctx, args),
        InstitutionCommand::Open { keys, package, out, store } => {
            access::open(ctx, keys, package, out.as_deref(), store.as_deref())
        }
        InstitutionCommand::AttestErasure { keys, grant, report, hold, until } => {
            office::attest_erasure(ctx, keys, *grant, report, hold.zip(*until))
        }
        InstitutionCommand::JoinPiece(args) => office::join_piece(ctx, args),
        InstitutionCommand::Recover(args) => office::recover(ctx, args),
        InstitutionCommand::Delegate(args) => office::delegate(ctx, args),
        InstitutionCommand::EndDelegation { keys, delegation, cause } => {
            office::end_delegation(ctx, keys, *delegation, *cause)
        }
        InstitutionCommand::Order(args) => orders::order(ctx, args),
        InstitutionCommand::Cosign { keys, draft, out, yes } => orders::cosign(ctx, keys, draft, out, *yes),
        InstitutionCommand::Submit { draft } => orders::submit(ctx, draft),
        InstitutionCommand::ReviewEmergency { keys, permit, verdict } => {
            office::review(ctx, keys, *permit, *verdict)
        }
        InstitutionCommand::NotifyPerson { keys, permit, notice } => {
            office::notify(ctx, keys, *permit, notice)
        }
        InstitutionCommand::RotateOperator(args) => office::rotate(ctx, args),
        InstitutionCommand::RetireOperator { keys, key } => office::retire(ctx, keys, key),
        InstitutionCommand::Activity(args) => activity::activity(ctx, args),
        InstitutionCommand::Review { keys, item, requester, purpose, until } => {
            let requester = institution_id(&ctx.genesis()?, requester)?;
            let review = ReviewOpening { item: *item, requester, purpose: *purpose, until: *until };
            act(ctx, keys, Action::ReviewOpening(review))
        }
    }
}

fn public_key(text: &str) -> Result<PublicKey, String> {
    PublicKey::from_hex(text).ok_or_else(|| "64 hexadecimal digits are expected".to_owned())
}

/// Signs, submits, waits, reports.
pub(crate) fn act(ctx: &Context, keys: &Keys, action: Action) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let secrets = ctx.institution(&keys.keyfile)?;
    Ok(ctx.act(&genesis, &mut node, &secrets, action)?.reply(ctx.lang))
}

fn show(secrets: &InstitutionSecrets) -> Result<Reply, Failure> {
    let (operator, encryption) = (secrets.operator()?.public(), secrets.encryption_key()?);
    let json = json!({
        "slug": secrets.slug, "institution": secrets.institution(), "operator_key": operator,
        "encryption_key": encryption, "age_recipient": secrets.identity()?.to_public().to_string(),
    });
    let text = format!(
        "{}\ninstitution     {}\noperator key    {operator}\nencryption key  {encryption}",
        secrets.slug,
        secrets.institution()
    );
    Ok(Reply::new(json, text))
}

fn admission(ctx: &Context, args: &AdmissionArgs) -> Result<Reply, Failure> {
    let bad = |e: assent_genesis::GenesisError| Failure::local("BadAdmission", e.to_string());
    let secrets = ctx.institution(&args.keys.keyfile)?;
    let profile = Profile {
        rostered_until: args.described.rostered_until,
        slug: secrets.slug.clone(),
        name_en: args.name_en.clone(),
        name_zh: args.name_zh.clone(),
        roles: args.described.roles.clone(),
        max_level: args.described.max_level,
        jurisdiction: args.described.jurisdiction,
        encryption_key: secrets.encryption_key()?,
    };
    let operator = Operator {
        key: secrets.operator()?,
        not_before: args.described.not_before,
        not_after: args.described.not_after,
    };
    let mut validators = Vec::new();
    for path in &args.validators {
        validators.push(ValidatorPiece::parse(&files::read_text(path)?).map_err(bad)?);
    }
    let piece = Admission::sign(&args.chain_id, profile, &[operator], validators).map_err(bad)?;
    files::create(&args.out, piece.to_toml().as_bytes())?;
    let text = format!("{}: the public piece of {}; it holds no secrets", args.out.display(), secrets.slug);
    Ok(Reply::new(
        json!({ "file": args.out, "slug": secrets.slug, "institution": secrets.institution() }),
        text,
    ))
}

fn enrol(ctx: &Context, keys: &Keys, request: &Path) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let secrets = ctx.institution(&keys.keyfile)?;
    let (body, envelope) = countersigned(&genesis, &secrets, &files::read_json(request)?)?;
    let (done, seconds) = node.submit(&envelope)?;
    let reply = Done { done, seconds }.reply(ctx.lang).with("account", wallet::account_of(&genesis, &body));
    match &body.action {
        Action::Enrol(e) => Ok(reply.with("custodian", words::slug(&genesis, &e.custodian))),
        _ => Ok(reply),
    }
}

/// Countersigns the body that the wallet built and signed, once it is what it must be.
fn countersigned(
    genesis: &Genesis,
    secrets: &InstitutionSecrets,
    request: &EnrolRequest,
) -> Result<(Body, Envelope), Failure> {
    let (body, wallet) = request.parts()?;
    let bad =
        |why: &str| Failure::local("BadRequest", format!("the enrolment is not to be countersigned: {why}"));
    let Action::Enrol(enrol) = &body.action else { return Err(bad("it asks for something else")) };
    if body.author != Author::Institution(secrets.institution()) || body.chain != genesis.hash().tag() {
        return Err(bad("it is for another institution or chain"));
    }
    let message = signing_message(&genesis.hash(), wallet.algorithm, &wallet.key, &body.encode());
    if wallet.key != enrol.key || !wallet.key.verify(&message.0, &wallet.signature) {
        return Err(bad("the wallet has not shown that it holds the key"));
    }
    let mut envelope = Envelope::sign(&genesis.hash(), &body, &[&secrets.operator()?]);
    let signatures = vec![envelope.signatures[0].clone(), wallet];
    envelope.signatures = signatures.try_into().expect("two signatures");
    Ok((body, envelope))
}

fn ask_handle(ctx: &Context, keys: &Keys, custodian: &str, purpose: Purpose) -> Result<Reply, Failure> {
    let genesis = ctx.genesis()?;
    let secrets = ctx.institution(&keys.keyfile)?;
    let custodian = institution_id(&genesis, custodian)?;
    let question = Question::ask(&genesis, &secrets, custodian, purpose, words::now())?.text();
    let qr = qr::picture(&question)?;
    Ok(Reply::new(json!({ "question": question }), format!("{qr}\n{question}")).with("qr", qr))
}

fn check_handle(ctx: &Context, question: &str, answer: &str) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let question = Question::parse(&genesis, &text_or_file(question)?)?;
    question.asked_by(&wallet::operators(&mut node, &question.institution)?)?;
    let answer = text_or_file(answer)?;
    let claimed = Question::claimed(&answer)?;
    let Some((account, time)) = node.account(claimed)? else {
        return Err(Failure::Proof(format!("there is no account {claimed} on the chain")));
    };
    // A recovery replaces the key by time alone.
    let account = Account { key: account.key_at(time), ..account };
    let id = question.check(&genesis, &answer, &account)?;
    let custodian = words::slug(&genesis, &account.custodian);
    let text = format!("account {id} with {custodian}: signed by the account's key on the chain");
    Ok(Reply::new(json!({ "account": id, "custodian": custodian, "key": account.key }), text))
}

impl Class {
    fn recipients(&self, ctx: &Context) -> Result<List<InstitutionId, 16>, Failure> {
        let genesis = ctx.genesis()?;
        let ids =
            self.recipients.iter().map(|r| institution_id(&genesis, r)).collect::<Result<Vec<_>, _>>()?;
        list("--recipient", ids)
    }
}

fn register_item(
    ctx: &Context,
    keys: &Keys,
    code: u32,
    scope: u32,
    category: Category,
    class: &Class,
) -> Result<Reply, Failure> {
    let recipients = class.recipients(ctx)?;
    let (level, opening) = (class.level, class.opening);
    let action = Action::RegisterItem(RegisterItem { code, scope, category, level, opening, recipients });
    Ok(act(ctx, keys, action)?.with("item", ItemId::of(code, scope)))
}

fn classify(ctx: &Context, keys: &Keys, item: ItemId, class: &Class) -> Result<Reply, Failure> {
    let recipients = class.recipients(ctx)?;
    let action = Action::Classify(Classify { item, level: class.level, opening: class.opening, recipients });
    Ok(act(ctx, keys, action)?.with("item", item))
}

/// A bounded list; too many is wrong use.
pub(crate) fn list<T, const MAX: usize>(
    option: &'static str,
    values: Vec<T>,
) -> Result<List<T, MAX>, Failure> {
    let n = values.len();
    List::try_from(values)
        .map_err(|_| Failure::local("Usage", format!("{option}: {n} are too many, at most {MAX}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use assent_proto::envelope::{self, SignatureEntry};
    use assent_proto::keys::Algorithm;
    use assent_proto::{InstitutionId, SecretKey};

    fn request(
        genesis: &Genesis,
        author: InstitutionId,
        named: &SecretKey,
        signer: &SecretKey,
    ) -> EnrolRequest {
        let custodian = assent_genesis::institution_id("hospital-a");
        let enrol = Enrol { custodian, algorithm: Algorithm::Ed25519, key: named.public() };
        let (chain, author) = (genesis.hash().tag(), Author::Institution(author));
        let body = Body { chain, expires_at: TimeMs(9), author, action: Action::Enrol(enrol) };
        EnrolRequest::new(&body, &SignatureEntry::sign(&genesis.hash(), signer, &body.encode()))
    }

    #[test]
    fn r18_only_a_key_that_was_shown_to_be_held_is_enrolled() {
        let devnet = assent_genesis::testing::devnet(4, 4);
        let (genesis, bureau) = (devnet.genesis, &devnet.institutions[0]);
        assert_eq!(bureau.slug, "bureau");
        let secrets =
            InstitutionSecrets::from_parts("bureau", &bureau.operator, &bureau.encryption.0).unwrap();
        let (key, other) = (SecretKey::from_bytes(&[3; 32]), SecretKey::from_bytes(&[4; 32]));
        let id = secrets.institution();

        let good = request(&genesis, id, &key, &key);
        let (_, signed) = countersigned(&genesis, &secrets, &good).unwrap();
        let tx = envelope::verify(&genesis.hash(), &[signed.encode()]).remove(0).unwrap();
        assert_eq!(
            tx.signers(),
            [bureau.operator.public(), key.public()],
            "the institution first, then the key"
        );

        let insurer = assent_genesis::institution_id("insurer");
        for bad in [request(&genesis, id, &key, &other), request(&genesis, insurer, &key, &key)] {
            assert_eq!(countersigned(&genesis, &secrets, &bad).err().unwrap().name(), "BadRequest");
        }
    }
}
