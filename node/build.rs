//! Compiles the service of `rpc.proto`. Messages that the protocol crate holds are taken from there.
use std::{env, fs, path::PathBuf};

const SCHEMA: &str = "../proto/schema";
const SERVICE: &str = "assent/v1/rpc.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed={SCHEMA}");
    let descriptors = protox::compile([SERVICE], [SCHEMA])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut builder = tonic_prost_build::configure().bytes(".").skip_debug(["."]);
    for file in descriptors.file.iter().filter(|f| f.name() != SERVICE) {
        let names = file.message_type.iter().map(|m| m.name()).chain(file.enum_type.iter().map(|e| e.name()));
        for name in names {
            let rust = format!("::assent_proto::wire::{name}");
            builder = builder.extern_path(format!(".assent.v1.{name}"), rust);
        }
    }
    let bytes = protox::Compiler::new([SCHEMA])?
        .include_imports(true)
        .open_file(SERVICE)?
        .encode_file_descriptor_set();
    fs::write(out.join("rpc.bin"), bytes)?;
    builder.compile_fds(descriptors)?;
    Ok(())
}
