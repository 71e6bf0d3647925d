//! What an institution does: enrol persons, register and anchor, ask a person for an authorization, request
//! access, open what it received, attest erasure, record what it made of what.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use assent_genesis::{Admission, Operator, Profile, ValidatorPiece};
use assent_proto::envelope::signing_message;
use assent_proto::field::{List, Message};
use assent_proto::state::{Object, Role};
use assent_proto::transaction::*;
use assent_proto::{
    AccountId, ArtifactId, BatchId, BodyId, CaseId, Commitment, Day, Envelope, GrantId, Hash, ItemId,
    ObjectKind, PermitId, TimeMs, hash, merkle,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::context::{Context, institution_id, text_or_file};
use crate::error::Failure;
use crate::files;
use crate::handle::Question;
use crate::keyfile::{self, InstitutionSecrets};
use crate::output::Reply;
use crate::package::{Package, package_hash};
use crate::qr;
use crate::request::AuthorizationRequest;
use crate::rpc::Node;
use crate::store::{self, Offer, OfferedRecord, Resource, Store, StoredRecord};
use crate::wallet::EnrolRequest;
use crate::words::{self, kebab, named};

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
        after_help = "Example:\n  assent institution admission --keyfile operator.age --chain-id yantai-1 \
        --name-en 'Hospital A' --name-zh 第一医院 --role hospital --validator validator.toml -o hospital-a.toml\n\
        The validator pieces come from `assentd init` on the nodes."
    )]
    Admission(AdmissionArgs),
    /// Show the institution's public keys
    Show(Keys),
    /// Open an account for a person whose identity was checked (`assent wallet enrol-request`)
    Enrol {
        #[command(flatten)]
        #[allow(missing_docs)]
        keys: Keys,
        /// The wallet's request
        #[arg(long, value_name = "FILE")]
        request: PathBuf,
    },
    /// Ask a person for her handle with a custodian: text and QR code for her wallet
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
        after_help = "Example:\n  assent institution register-item --keyfile operator.age --code 101 --scope 1 \
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
        after_help = "Example:\n  assent institution anchor --keyfile operator.age --item ITEM --records claims.ndjson \
        --resource-type Claim --accounts accounts.json --store records.store\n\
        accounts.json maps FHIR subjects to accounts: {\"Patient/…\": \"64 hexadecimal digits\"}"
    )]
    Anchor(AnchorArgs),
    /// Ask a person for an authorization: a file for her wallet
    #[command(
        after_help = "Example:\n  assent institution ask --keyfile operator.age --account ACCOUNT --item ITEM --case CASE \
        --purpose claims-payment --action read --not-after 2026-12-31 -o ask.json"
    )]
    Ask(AskArgs),
    /// Request access to records: a permit or a coded denial
    #[command(
        after_help = "Example:\n  assent institution request --keyfile operator.age --grant GRANT --offer offer.json \
        --purpose claims-payment --action read --case CASE\nExit 3 when denied."
    )]
    Request(RequestArgs),
    /// Open a package and check each record against its anchored commitment
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
    /// Attest that what was received under a revoked grant is erased
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
    },
    /// Record what was made of what
    #[command(
        after_help = "Example:\n  assent institution activity --keyfile operator.age --kind aggregate --artifact A1 \
        --plan plan.sql --product low:mean-by-district --exclude DENIED_REQUEST"
    )]
    Activity(ActivityArgs),
    /// Review a use that an opening makes conditional on it
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
    /// bureau, hospital, insurer, regulator, auditor, processor; may be repeated
    #[arg(long = "role", required = true, value_parser = named::<Role>)]
    pub roles: Vec<Role>,
    /// The highest level that it may receive
    #[arg(long, value_parser = named::<Level>, default_value = "high")]
    pub max_level: Level,
    /// ISO 3166-1 numeric
    #[arg(long, default_value_t = 156)]
    pub jurisdiction: u32,
    /// From when the operator key is valid
    #[arg(long, value_parser = words::time)]
    pub not_before: TimeMs,
    /// Until when the operator key is valid
    #[arg(long, value_parser = words::time)]
    pub not_after: TimeMs,
    /// A node's piece (`assentd init`); may be repeated
    #[arg(long = "validator", value_name = "FILE")]
    pub validators: Vec<PathBuf>,
    /// Where to write it
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
}

/// What to anchor.
#[derive(Args, Debug)]
pub struct AnchorArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: Keys,
    /// Their catalogue item
    #[arg(long)]
    pub item: ItemId,
    /// FHIR resources, one JSON object a line
    #[arg(long, value_name = "NDJSON")]
    pub records: PathBuf,
    /// Of these resource types alone; may be repeated
    #[arg(long = "resource-type", value_name = "TYPE")]
    pub types: Vec<String>,
    /// Of these resources alone (`Claim/…`); may be repeated
    #[arg(long = "record", value_name = "REFERENCE")]
    pub references: Vec<String>,
    /// Which FHIR subject is which account, as JSON
    #[arg(long, value_name = "JSON")]
    pub accounts: PathBuf,
    /// The custodian's store of contents, salts and proofs; made if it is not there
    #[arg(long, value_name = "FILE")]
    pub store: PathBuf,
    /// A case that these settlements settle; may be repeated
    #[arg(long = "settles", value_name = "CASE")]
    pub settles: Vec<CaseId>,
}

/// What to ask a person for.
#[derive(Args, Debug)]
pub struct AskArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: Keys,
    /// Whose data
    #[arg(long)]
    pub account: AccountId,
    /// An item; may be repeated
    #[arg(long = "item")]
    pub items: Vec<ItemId>,
    /// A whole category besides; may be repeated
    #[arg(long = "category", value_parser = named::<Category>)]
    pub categories: Vec<Category>,
    /// For this case alone
    #[arg(long)]
    pub case: Option<CaseId>,
    /// claims-payment, treatment, mutual-recognition, research, statistics, operations, marketing
    #[arg(long, value_parser = named::<Purpose>)]
    pub purpose: Purpose,
    /// read, copy, compute, derive, disclose; may be repeated
    #[arg(long = "action", value_parser = named::<UseAction>, default_value = "read")]
    pub actions: Vec<UseAction>,
    /// raw, masked, result-only
    #[arg(long, value_parser = named::<Output>, default_value = "raw")]
    pub output: Output,
    /// The highest sensitivity
    #[arg(long, value_parser = named::<Level>, default_value = "high")]
    pub max_level: Level,
    /// one-time, n-times, standing
    #[arg(long, value_parser = named::<Mode>, default_value = "one-time")]
    pub mode: Mode,
    /// How many times, for n-times
    #[arg(long)]
    pub uses: Option<u32>,
    /// First day of the data
    #[arg(long, value_parser = words::day, default_value = "1970-01-01")]
    pub data_from: Day,
    /// Last day of the data
    #[arg(long, value_parser = words::day, default_value = "2099-12-31")]
    pub data_to: Day,
    /// From when it is valid; the founding time if not given
    #[arg(long, value_parser = words::time)]
    pub not_before: Option<TimeMs>,
    /// Until when it is valid
    #[arg(long, value_parser = words::time)]
    pub not_after: TimeMs,
    /// How long what is received may be kept
    #[arg(long, default_value_t = 30)]
    pub retention_days: u32,
    /// Whether it may be passed on
    #[arg(long)]
    pub onward: bool,
    /// Where it may be used, ISO 3166-1 numeric; may be repeated
    #[arg(long = "jurisdiction", default_value = "156")]
    pub jurisdictions: Vec<u32>,
    /// consent, contract, statute
    #[arg(long, value_parser = named::<LegalBasis>, default_value = "consent")]
    pub legal_basis: LegalBasis,
    /// Write the request to this file
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// What to request.
#[derive(Args, Debug)]
pub struct RequestArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: Keys,
    /// The grant relied on; without one, the item's opening
    #[arg(long)]
    pub grant: Option<GrantId>,
    /// A custodian's offer; may be repeated
    #[arg(long = "offer", value_name = "FILE", required = true)]
    pub offers: Vec<PathBuf>,
    /// Of the offer, these records alone (`Claim/…`); may be repeated
    #[arg(long = "record", value_name = "REFERENCE")]
    pub references: Vec<String>,
    /// For which case
    #[arg(long)]
    pub case: Option<CaseId>,
    /// What for
    #[arg(long, value_parser = named::<Purpose>)]
    pub purpose: Purpose,
    /// read, copy, compute, derive, disclose
    #[arg(long, value_parser = named::<UseAction>, default_value = "read")]
    pub action: UseAction,
    /// raw, masked, result-only
    #[arg(long, value_parser = named::<Output>, default_value = "raw")]
    pub output: Output,
    /// The acting member of staff; the chain gets a salted commitment
    #[arg(long, default_value = "")]
    pub staff: String,
    /// Do not name the account: the offered records are of several persons
    #[arg(long)]
    pub several_persons: bool,
}

/// What was made.
#[derive(Args, Debug)]
pub struct ActivityArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: Keys,
    /// clean, mask, aggregate, reuse, compute
    #[arg(long, value_parser = named::<ActivityKind>)]
    pub kind: ActivityKind,
    /// A permit whose records went in; may be repeated
    #[arg(long = "permit")]
    pub permits: Vec<PermitId>,
    /// An earlier product that went in; may be repeated
    #[arg(long = "artifact")]
    pub artifacts: Vec<ArtifactId>,
    /// A new product, `LEVEL` or `LEVEL:NAME`; the chain gets a salted commitment to the name; may be repeated
    #[arg(long = "product", required = true, value_name = "LEVEL[:NAME]")]
    pub products: Vec<String>,
    /// The program or plan, of which the chain gets the hash
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// A denied request whose data stayed out; may be repeated
    #[arg(long = "exclude", value_name = "BODY_ID")]
    pub excluded: Vec<BodyId>,
}

/// The one matter that an authorization is for.
#[derive(Subcommand, Debug)]
pub enum CaseCommand {
    /// Make a commitment to a case; keep the salt, pass the commitment on
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
        InstitutionCommand::Anchor(args) => anchor(ctx, args),
        InstitutionCommand::Ask(args) => ask(ctx, args),
        InstitutionCommand::Request(args) => request(ctx, args),
        InstitutionCommand::Open { keys, package, out, store } => {
            open(ctx, keys, package, out.as_deref(), store.as_deref())
        }
        InstitutionCommand::AttestErasure { keys, grant, report } => {
            let report = hash::DOCUMENT.hash(&[&files::read(report)?]);
            let reply = act(ctx, keys, Action::AttestErasure(AttestErasure { grant: *grant, report }))?;
            Ok(reply.with("grant", grant).with("report", report))
        }
        InstitutionCommand::Activity(args) => activity(ctx, args),
        InstitutionCommand::Review { keys, item, requester, purpose, until } => {
            let requester = institution_id(&ctx.genesis()?, requester)?;
            let review = ReviewOpening { item: *item, requester, purpose: *purpose, until: *until };
            act(ctx, keys, Action::ReviewOpening(review))
        }
    }
}

/// Signs, submits, waits, reports.
fn act(ctx: &Context, keys: &Keys, action: Action) -> Result<Reply, Failure> {
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
        slug: secrets.slug.clone(),
        name_en: args.name_en.clone(),
        name_zh: args.name_zh.clone(),
        roles: args.roles.clone(),
        max_level: args.max_level,
        jurisdiction: args.jurisdiction,
        encryption_key: secrets.encryption_key()?,
    };
    let operator =
        Operator { key: secrets.operator()?, not_before: args.not_before, not_after: args.not_after };
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

/// Countersigns the body that the wallet built and signed, once it is what it must be.
fn enrol(ctx: &Context, keys: &Keys, request: &Path) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let secrets = ctx.institution(&keys.keyfile)?;
    let (body, wallet) = files::read_json::<EnrolRequest>(request)?.parts()?;
    let bad =
        |why: &str| Failure::local("BadRequest", format!("the enrolment is not to be countersigned: {why}"));
    let Action::Enrol(enrol) = &body.action else { return Err(bad("it asks for something else")) };
    if body.author != Author::Institution(secrets.institution()) || body.chain != genesis.hash().tag() {
        return Err(bad("it is for another institution or chain"));
    }
    let bytes = body.encode();
    let message = signing_message(&genesis.hash(), wallet.algorithm, &wallet.key, &bytes);
    if wallet.key != enrol.key || !wallet.key.verify(&message.0, &wallet.signature) {
        return Err(bad("the wallet has not shown that it holds the key"));
    }
    let mut envelope = Envelope::sign(&genesis.hash(), &body, &[&secrets.operator()?]);
    let signatures = vec![envelope.signatures[0].clone(), wallet];
    envelope.signatures = signatures.try_into().expect("two signatures");
    let (done, seconds) = node.submit(&envelope)?;
    let reply = crate::context::Done { done, seconds }.reply(ctx.lang);
    let account = crate::wallet::account_of(&genesis, &body);
    Ok(reply.with("account", account).with("custodian", words::slug(&genesis, &enrol.custodian)))
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
    let answer = text_or_file(answer)?;
    let claimed = Question::claimed(&answer)?;
    let Some(Object::Account(account)) = node.object(claimed.into())?.object else {
        return Err(Failure::Proof(format!("there is no account {claimed} on the chain")));
    };
    let id = question.check(&genesis, &answer, &account)?;
    let custodian = words::slug(&genesis, &account.custodian);
    let text = format!("account {id} with {custodian}: signed by the account's key on the chain");
    Ok(Reply::new(json!({ "account": id, "custodian": custodian, "key": account.key }), text))
}

impl Class {
    fn recipients(&self, ctx: &Context) -> Result<List<assent_proto::InstitutionId, 16>, Failure> {
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

fn anchor(ctx: &Context, args: &AnchorArgs) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let secrets = ctx.institution(&args.keys.keyfile)?;
    let resources = chosen(args)?;
    if resources.is_empty() {
        return Err(Failure::local(
            "NoRecords",
            format!("{}: nothing to anchor in it", args.records.display()),
        ));
    }
    let mut store = Store::open(&args.store)?;
    let (mut batches, mut text, mut settles) = (Vec::new(), String::new(), args.settles.clone());
    for part in resources.chunks(RECORDS_PER_BATCH_MAX as usize) {
        let (root, records) = batch(args.item, part);
        let settles = list("--settles", std::mem::take(&mut settles))?;
        let action =
            Action::AnchorRecords(AnchorRecords { item: args.item, root, count: part.len() as u32, settles });
        let body = ctx.body(&genesis, Author::Institution(secrets.institution()), action);
        let id = BatchId(body_id(&genesis.hash(), &body.encode()).0);
        // Salts are stored before the chain sees the commitments: what is anchored can always be opened.
        let kept = store.records.len();
        store.records.extend(records.into_iter().map(|r| StoredRecord { batch: id, ..r }));
        store.save(&args.store)?;
        let done = ctx.send(&genesis, &mut node, &body, &[&secrets.operator()?])?;
        let reply =
            done.reply(ctx.lang).with("batch", id).with("records", part.len()).with("item", args.item);
        text += &format!("{}, {} records\n", reply.text, part.len());
        if reply.exit != 0 {
            store.records.truncate(kept);
            store.save(&args.store)?;
            return Ok(reply);
        }
        batches.push(reply.json);
    }
    let last = batches.last().cloned().unwrap_or_default();
    let reply = Reply::new(last, text).with("records", resources.len());
    Ok(reply.with("batches", batches))
}

/// The records that were chosen, each with its account.
fn chosen(args: &AnchorArgs) -> Result<Vec<(Resource, AccountId)>, Failure> {
    let accounts: BTreeMap<String, AccountId> = files::read_json(&args.accounts)?;
    let mut out = Vec::new();
    for (i, line) in
        files::read_text(&args.records)?.lines().enumerate().filter(|(_, l)| !l.trim().is_empty())
    {
        let resource = Resource::parse(line).map_err(|e| {
            Failure::local("BadResource", format!("{} line {}: {e}", args.records.display(), i + 1))
        })?;
        let wanted = (args.types.is_empty() || args.types.contains(&resource.kind))
            && (args.references.is_empty() || args.references.contains(&resource.reference));
        if wanted {
            let account = *accounts.get(&resource.subject).ok_or_else(|| {
                Failure::local(
                    "NoSuchAccount",
                    format!("line {}: {} has no account in the map", i + 1, resource.subject),
                )
            })?;
            out.push((resource, account));
        }
    }
    Ok(out)
}

/// Salts and commits to the records, and gives the root over them with each record's path.
fn batch(item: ItemId, part: &[(Resource, AccountId)]) -> (Hash, Vec<StoredRecord>) {
    let mut records: Vec<_> = part
        .iter()
        .enumerate()
        .map(|(i, (resource, account))| {
            let salt = Hash(files::random_32());
            StoredRecord {
                reference: resource.reference.clone(),
                account: *account,
                day: resource.day,
                salt,
                commitment: store::commitment(&salt, &resource.content),
                content: resource.content.clone(),
                item,
                batch: BatchId(Hash::ZERO),
                index: i as u32,
                path: Vec::new(),
            }
        })
        .collect();
    let leaves: Vec<_> = records.iter().map(|r| r.record().leaf()).collect();
    for (i, record) in records.iter_mut().enumerate() {
        record.path = merkle::path(&leaves, i);
    }
    (merkle::root(&leaves), records)
}

fn ask(ctx: &Context, args: &AskArgs) -> Result<Reply, Failure> {
    let genesis = ctx.genesis()?;
    let secrets = ctx.institution(&args.keys.keyfile)?;
    let terms = Grant {
        grantee: secrets.institution(),
        capacity: Capacity::Own,
        items: list("--item", args.items.clone())?,
        categories: list("--category", args.categories.clone())?,
        data_from: args.data_from,
        data_to: args.data_to,
        case: args.case,
        purpose: args.purpose,
        actions: list("--action", args.actions.clone())?,
        output: args.output,
        max_level: args.max_level,
        mode: args.mode,
        uses: match args.mode {
            Mode::OneTime => 1,
            Mode::NTimes => {
                args.uses.ok_or_else(|| Failure::local("Usage", "--mode n-times needs --uses"))?
            }
            Mode::Standing => 0,
        },
        not_before: args.not_before.unwrap_or_else(|| genesis.time()),
        not_after: args.not_after,
        retention_days: args.retention_days,
        onward: args.onward,
        jurisdictions: list("--jurisdiction", args.jurisdictions.clone())?,
        legal_basis: args.legal_basis,
        notice: Hash::ZERO,
        language: ctx.lang.language(),
        policy_version: genesis.policy().version,
    };
    let request = AuthorizationRequest::sign(&genesis, &secrets, args.account, &terms)?;
    let request = serde_json::to_value(&request).expect("a request is plain data");
    if let Some(out) = &args.out {
        files::create(out, request.to_string().as_bytes())?;
    }
    let text = match &args.out {
        Some(out) => format!("{}: show it to the person's wallet", out.display()),
        None => request.to_string(),
    };
    Ok(Reply::new(json!({ "request": request, "file": args.out }), text))
}

fn request(ctx: &Context, args: &RequestArgs) -> Result<Reply, Failure> {
    let records = offered(&args.offers, &args.references)?;
    let first =
        records.first().ok_or_else(|| Failure::local("NoRecords", "the offers have no such records"))?;
    if let Some(other) = records.iter().find(|r| r.item != first.item) {
        return Err(Failure::local(
            "Usage",
            format!("{} is of another item; one request is for one item", other.reference),
        ));
    }
    let salt = Hash(files::random_32());
    let proofs = records.iter().map(OfferedRecord::proof).collect::<Result<Vec<_>, _>>()?;
    let action = Action::RequestAccess(Box::new(RequestAccess {
        grant: args.grant,
        item: first.item,
        account: (!args.several_persons).then_some(first.account),
        case: args.case,
        purpose: args.purpose,
        action: args.action,
        output: args.output,
        records: list("--record", proofs)?,
        staff: Commitment(hash::commit(&salt.0, "staff", args.staff.as_bytes())),
        person: None,
    }));
    let reply = act(ctx, &args.keys, action)?;
    let permit = if reply.exit == 0 { reply.json["body_id"].clone() } else { Value::Null };
    Ok(reply.with("permit", permit).with("grant", args.grant).with("staff_salt", salt))
}

/// The records of the offers, or those of them that were named.
fn offered(offers: &[PathBuf], references: &[String]) -> Result<Vec<OfferedRecord>, Failure> {
    let mut all = Vec::new();
    for path in offers {
        all.extend(files::read_json::<Offer>(path)?.records);
    }
    if references.is_empty() {
        return Ok(all);
    }
    let find = |reference: &String| {
        let found = all.iter().find(|r| r.reference == *reference).cloned();
        found.ok_or_else(|| Failure::local("NoSuchRecord", format!("{reference}: not offered")))
    };
    references.iter().map(find).collect()
}

fn open(
    ctx: &Context,
    keys: &Keys,
    package: &Path,
    out: Option<&Path>,
    store: Option<&Path>,
) -> Result<Reply, Failure> {
    let (_, mut node) = ctx.connect()?;
    let secrets = ctx.institution(&keys.keyfile)?;
    let bytes = files::read(package)?;
    let opened = Package::open(&bytes, &secrets.identity()?)?;
    let Some(Object::Permit(permit)) = node.object(opened.permit.into())?.object else {
        return Err(Failure::Proof(format!("there is no permit {} on the chain", opened.permit)));
    };
    opened.check(&permit)?;
    in_batches(&mut node, &opened.records)?;
    let delivered = delivered_package(&mut node, opened.permit)?;
    if delivered.is_some_and(|h| h != package_hash(&bytes)) {
        return Err(Failure::Proof("the delivery on the chain names another package".into()));
    }
    if let Some(out) = out {
        let lines: String = opened.records.iter().map(|r| format!("{}\n", r.content)).collect();
        files::create(out, lines.as_bytes())?;
    }
    if let Some(path) = store {
        let mut kept = Store::open(path)?;
        kept.records.extend(opened.records.iter().cloned());
        kept.save(path)?;
    }
    let references: Vec<_> = opened.records.iter().map(|r| r.reference.clone()).collect();
    let text =
        format!("{} records, each as it was anchored:\n  {}", references.len(), references.join("\n  "));
    Ok(Reply::new(
        json!({ "permit": opened.permit, "records": references, "verified": true, "delivery_matches": delivered.is_some(), "file": out }),
        text,
    ))
}

/// Whether every record stands in a batch on the chain.
fn in_batches(node: &mut Node, records: &[StoredRecord]) -> Result<(), Failure> {
    let mut batches = BTreeMap::new();
    for record in records {
        let batch = match batches.entry(record.batch) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => match node.object(record.batch.into())?.object {
                Some(Object::Batch(batch)) => new.insert(batch),
                _ => {
                    return Err(Failure::Proof(format!(
                        "{}: its batch is not on the chain",
                        record.reference
                    )));
                }
            },
        };
        if !record.offered().stands_in(&batch.root, batch.count) || batch.item != record.item {
            return Err(Failure::Proof(format!("{}: is not in the batch that it names", record.reference)));
        }
    }
    Ok(())
}

/// The hash of the package that the chain says was delivered on the permit, if it was.
fn delivered_package(node: &mut Node, permit: PermitId) -> Result<Option<Hash>, Failure> {
    let trail = node.trail(permit.into())?;
    let events = trail.map(|t| t.events).unwrap_or_default();
    let delivered = events.iter().find(|e| e.core.kind == assent_proto::event::EventKind::Delivered);
    let Some(event) = delivered else { return Ok(None) };
    let tx = node.transaction(event.core.body, false)?;
    match tx.as_ref().map(|t| &t.body().action) {
        Some(Action::Deliver(d)) if d.permit == permit => Ok(Some(d.package)),
        _ => Err(Failure::Proof("the node does not show the delivery that the trail names".into())),
    }
}

fn activity(ctx: &Context, args: &ActivityArgs) -> Result<Reply, Failure> {
    let (mut outputs, mut artifacts) = (Vec::new(), Vec::new());
    for product in &args.products {
        let (level, name) = product.split_once(':').unwrap_or((product, ""));
        let level: Level = named(level).map_err(|e| Failure::local("Usage", e))?;
        let salt = Hash(files::random_32());
        let id = ArtifactId(hash::commit(&salt.0, "product", name.as_bytes()));
        outputs.push(Product { id, level });
        artifacts.push(json!({ "id": id, "level": kebab(&level), "name": name, "salt": salt }));
    }
    let plan = args.plan.as_deref().map(files::read).transpose()?.unwrap_or_default();
    let action = Action::RecordActivity(Box::new(RecordActivity {
        kind: args.kind,
        permits: list("--permit", args.permits.clone())?,
        artifacts: list("--artifact", args.artifacts.clone())?,
        outputs: list("--product", outputs)?,
        plan: hash::DOCUMENT.hash(&[&plan]),
        excluded: list("--exclude", args.excluded.clone())?,
    }));
    let reply = act(ctx, &args.keys, action)?;
    let activity = reply.json["body_id"].clone();
    let text =
        artifacts.iter().fold(reply.text.clone(), |t, a| format!("{t}\nproduct {} {}", a["id"], a["name"]));
    Ok(Reply { text, ..reply }.with("activity", activity).with("artifacts", artifacts))
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

/// The object that a review is found under, for look-ups.
pub fn review_ref(
    item: &ItemId,
    requester: &assent_proto::InstitutionId,
    purpose: Purpose,
) -> assent_proto::ObjectRef {
    assent_proto::ObjectRef {
        kind: ObjectKind::Review,
        id: ReviewOpening::review_id(item, requester, purpose),
    }
}
