//! The founding document: show it, put it together from the institutions' pieces, or make a devnet.

use std::fs;
use std::path::{Path, PathBuf};

use assent_genesis::devnet::{self, Devnet, Plan};
use assent_genesis::{Admission, Genesis, GenesisError, Rules};
use assent_proto::{SecretKey, TimeMs};
use clap::Subcommand;
use serde_json::json;

use crate::context::Context;
use crate::error::Failure;
use crate::files;
use crate::keyfile::{self, InstitutionSecrets};
use crate::output::Reply;
use crate::words::{self, kebab};

/// The founding document's commands.
#[derive(Subcommand, Debug)]
pub enum GenesisCommand {
    /// Show the chain, its institutions and its validators
    #[command(after_help = "Example:\n  assent genesis show --genesis genesis.toml")]
    Show,
    /// Print the genesis hash, by which everybody can make sure of having the same file
    #[command(after_help = "Example:\n  assent genesis hash --genesis genesis.toml")]
    Hash,
    /// Print the rules that a founding has unless it is given others: parameters and policy, as TOML
    #[command(after_help = "Example:\n  assent genesis rules > rules.toml\n\
        Change what is to be other, and give the file to `assent genesis collect --rules`. Once the chain runs,\n\
        parameters change by `assent govern propose parameters`, the policy by `assent govern propose policy`.")]
    Rules,
    /// Found a real network: put the institutions' signed pieces together. Whoever puts the same pieces
    /// together, with the same rules, gets the same file
    #[command(after_help = "Example:\n  assent genesis collect bureau.toml hospital-a.toml insurer.toml \
        --chain-id yantai-1 --time 2026-12-01T00:00:00Z \\\n      --rules rules.toml -o genesis.toml")]
    Collect {
        /// The pieces (`assent institution admission`)
        #[arg(required = true, value_name = "PIECE")]
        pieces: Vec<PathBuf>,
        /// The chain's name, as in the pieces
        #[arg(long)]
        chain_id: String,
        /// The founding time: block times are later
        #[arg(long, value_parser = words::time)]
        time: TimeMs,
        /// Parameters and policy: all of what `assent genesis rules` prints, with other values. Without it, the same
        #[arg(long, value_name = "FILE")]
        rules: Option<PathBuf>,
        /// Where to write it
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Make a network for development: all keys in one place, which a real network never does
    #[command(
        after_help = "Example:\n  assent genesis devnet --out devnet --nodes 4 --passphrase-file pass\n\
        It writes genesis.toml, NAME/operator.age for each institution, and for each node a folder with\n\
        consensus.key and network.key (64 hexadecimal digits, mode 0600): NAME, then NAME-2, NAME-3 where an\n\
        institution has several."
    )]
    Devnet {
        /// The folder to make
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// How many nodes
        #[arg(long, default_value_t = 4)]
        nodes: usize,
        /// How many institutions: bureau, hospital-a, hospital-b, insurer, then more hospitals
        #[arg(long, default_value_t = 4)]
        institutions: usize,
        /// The chain's name
        #[arg(long, default_value = "assent-devnet")]
        chain_id: String,
    },
}

/// Runs one.
pub fn run(ctx: &Context, command: &GenesisCommand) -> Result<Reply, Failure> {
    match command {
        GenesisCommand::Show => show(ctx, &ctx.genesis()?),
        GenesisCommand::Hash => {
            let hash = ctx.genesis()?.hash();
            Ok(Reply::new(json!({ "genesis": hash }), hash.to_string()))
        }
        GenesisCommand::Rules => Ok(default_rules()),
        GenesisCommand::Collect { pieces, chain_id, time, rules, out } => {
            collect(ctx, pieces, chain_id, *time, rules.as_deref(), out)
        }
        GenesisCommand::Devnet { out, nodes, institutions, chain_id } => {
            make_devnet(ctx, out, *nodes, *institutions, chain_id)
        }
    }
}

fn show(ctx: &Context, genesis: &Genesis) -> Result<Reply, Failure> {
    let mut text =
        format!("{}  {}\n{}\n", genesis.chain_id(), words::show_time(genesis.time()), genesis.hash());
    let mut institutions = Vec::new();
    for i in genesis.institutions() {
        let roles: Vec<_> = i.institution.roles.iter().map(kebab).collect();
        text += &format!(
            "{}  {}  {}  {}\n",
            i.slug,
            i.id,
            ctx.lang.pick(&i.name_en, &i.name_zh),
            roles.join(" ")
        );
        institutions.push(json!({
            "id": i.id, "slug": i.slug, "name_en": i.name_en, "name_zh": i.name_zh, "roles": roles,
            "encryption_key": i.institution.encryption_key, "max_level": i.institution.max_level,
        }));
    }
    let validators: Vec<_> = genesis
        .nodes()
        .iter()
        .map(|n| {
            json!({
                "address": n.address(), "institution": words::slug(genesis, &n.institution), "power": n.power,
                "consensus_key": n.consensus_key, "network_key": n.network_key,
            })
        })
        .collect();
    text += &format!("{} validators\n", validators.len());
    let json = json!({
        "chain_id": genesis.chain_id(), "time": genesis.time(), "genesis": genesis.hash(),
        "institutions": institutions, "validators": validators,
        "parameters": genesis.parameters(), "policy": genesis.policy(),
    });
    Ok(Reply::new(json, text))
}

fn default_rules() -> Reply {
    let rules = Rules::default();
    let json = json!({ "parameters": rules.parameters, "policy": rules.policy });
    Reply::new(json, rules.to_toml().trim_end())
}

fn collect(
    ctx: &Context,
    pieces: &[PathBuf],
    chain_id: &str,
    time: TimeMs,
    rules: Option<&Path>,
    out: &Path,
) -> Result<Reply, Failure> {
    let bad = |e: GenesisError| Failure::local("BadGenesis", e.to_string());
    let bad_file = |path: &Path, e| Failure::local("BadGenesis", format!("{}: {e}", path.display()));
    let load = |p: &PathBuf| Admission::load(p).map_err(|e| bad_file(p, e));
    let pieces = pieces.iter().map(load).collect::<Result<Vec<_>, _>>()?;
    let rules = rules.map_or_else(|| Ok(Rules::default()), |p| Rules::load(p).map_err(|e| bad_file(p, e)))?;
    let genesis = Genesis::found(chain_id, time, rules.parameters, rules.policy, pieces).map_err(bad)?;
    files::create(out, genesis.to_toml().as_bytes())?;
    show(ctx, &genesis).map(|r| r.with("file", out))
}

fn make_devnet(
    ctx: &Context,
    out: &Path,
    nodes: usize,
    institutions: usize,
    chain_id: &str,
) -> Result<Reply, Failure> {
    if out.exists() {
        return Err(Failure::local("FileExists", format!("{}: exists already", out.display())));
    }
    let passphrase = ctx.new_passphrase()?;
    let Rules { parameters, policy } = Rules::default();
    let (chain_id, time) = (chain_id.to_owned(), words::now());
    let plan = Plan { chain_id, time, nodes, institutions, parameters, policy };
    let made = devnet::found(&plan, &mut files::random_32)
        .map_err(|e| Failure::local("BadGenesis", e.to_string()))?;
    for i in &made.institutions {
        make_dir(&out.join(&i.slug))?;
        let secrets = InstitutionSecrets::from_parts(&i.slug, &i.operator, &i.encryption.0)?;
        keyfile::create(&out.join(&i.slug).join("operator.age"), &secrets, &passphrase)?;
    }
    let folders = write_nodes(out, &made)?;
    let file = out.join("genesis.toml");
    files::create(&file, made.genesis.to_toml().as_bytes())?;
    Ok(show(ctx, &made.genesis)?.with("file", file).with("nodes", folders))
}

/// One folder a node: the institution's, and for its further nodes ones of their own.
fn write_nodes(out: &Path, made: &Devnet) -> Result<Vec<serde_json::Value>, Failure> {
    let mut folders: Vec<serde_json::Value> = Vec::new();
    for node in &made.nodes {
        let earlier = folders.iter().filter(|f| f["institution"] == node.institution).count();
        let name = match earlier {
            0 => node.institution.clone(),
            n => format!("{}-{}", node.institution, n + 1),
        };
        let dir = out.join(name);
        make_dir(&dir)?;
        files::create(&dir.join("consensus.key"), hex_line(&node.consensus).as_bytes())?;
        files::create(&dir.join("network.key"), hex_line(&node.network).as_bytes())?;
        folders.push(json!({ "dir": dir, "institution": node.institution, "address": node.address }));
    }
    Ok(folders)
}

fn hex_line(key: &SecretKey) -> String {
    format!("{}\n", hex::encode(key.to_bytes()))
}

fn make_dir(path: &Path) -> Result<(), Failure> {
    fs::create_dir_all(path).map_err(|e| Failure::file(path, e))
}
