//! Entry point of `assent`: the tree of commands, and nothing else.

use std::process::ExitCode;

use assent_client::context::Context;
use assent_client::error::Failure;
use assent_client::output::{self, Reply};
use assent_client::{audit, custodian, explain, founding, govern, institution, verify, wallet};
use clap::{Parser, Subcommand};

/// Consent and provenance of health-insurance data: wallet, institution, custodian, audit, verify.
///
/// No node is trusted: every answer is verified against the genesis file before it is shown.
#[derive(Parser)]
#[command(name = "assent", version, after_long_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    context: Context,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  wrong use, or a local file is missing, unreadable or of another kind
  2  refused by the node or the ledger, with a code; nothing was committed
  3  denied: the rules said no; the denial is committed, with a code (explain: would be; nothing is committed)
  4  a proof does not verify, or an answer is not about what was asked
  5  the node does not answer

Examples:
  assent genesis devnet --out devnet --nodes 4 --passphrase-file pass
  assent wallet new --wallet lin.wallet
  assent --genesis genesis.toml --node http://127.0.0.1:26651 status
  assent --genesis genesis.toml verify permit.evidence";

#[derive(Subcommand)]
enum Command {
    /// A person's accounts, authorizations, and who used her data
    #[command(subcommand)]
    Wallet(wallet::WalletCommand),
    /// What an institution does: enrol, register, anchor, ask, request, open, attest, record
    #[command(subcommand)]
    Institution(institution::InstitutionCommand),
    /// What a custodian does: offer, release, report
    #[command(subcommand)]
    Custodian(custodian::CustodianCommand),
    /// Would a request be permitted, and if not, which rule says so; commits nothing
    Explain(explain::ExplainArgs),
    /// The one matter that an authorization is for
    #[command(subcommand)]
    Case(institution::CaseCommand),
    /// Follow the trail: lineage, evidence, supervision
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// What those who run validators decide: who votes, who connects, the bounds
    #[command(subcommand)]
    Govern(govern::GovernCommand),
    /// Check evidence files with the genesis file alone; no node is asked
    Verify(verify::VerifyArgs),
    /// How the node says it is
    #[command(after_help = "Example:\n  assent --genesis genesis.toml --node http://192.0.2.7:26651 status")]
    Status,
    /// What became of a transaction, with its proof
    Tx(verify::TxArgs),
    /// An object as it stands, with its proof
    Object(verify::ObjectArgs),
    /// The founding document
    #[command(subcommand)]
    Genesis(founding::GenesisCommand),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version are no mistake; anything else is wrong use.
            let exit = u8::from(e.use_stderr());
            drop(e.print());
            return ExitCode::from(exit);
        }
    };
    ExitCode::from(output::print(run(&cli.context, &cli.command), cli.context.json))
}

fn run(ctx: &Context, command: &Command) -> Result<Reply, Failure> {
    match command {
        Command::Wallet(c) => wallet::run(ctx, c),
        Command::Institution(c) => institution::run(ctx, c),
        Command::Custodian(c) => custodian::run(ctx, c),
        Command::Explain(args) => explain::run(ctx, args),
        Command::Case(c) => institution::run_case(c),
        Command::Audit(c) => audit::run(ctx, c),
        Command::Govern(c) => govern::run(ctx, c),
        Command::Verify(args) => verify::run(ctx, args),
        Command::Status => verify::status(ctx),
        Command::Tx(args) => verify::tx(ctx, args),
        Command::Object(args) => verify::object(ctx, args),
        Command::Genesis(c) => founding::run(ctx, c),
    }
}
