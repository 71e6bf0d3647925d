//! Compiles the schema with `protox`, so that no `protoc` is needed.
use std::{env, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files =
        ["transaction", "state", "block", "evidence", "question"].map(|f| format!("assent/v1/{f}.proto"));
    println!("cargo:rerun-if-changed=schema");
    let descriptors = protox::compile(files, ["schema"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    prost_build::Config::new().bytes(["."]).skip_debug(["."]).compile_fds(descriptors)?;
    Ok(())
}
