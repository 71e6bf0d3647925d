//! Compiles the client side of `rpc.proto`; the messages that `proto` has generated already are taken from it.
//! The server side is there in the crate's own tests alone, for nodes that lie.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let schema = "../proto/schema";
    println!("cargo:rerun-if-changed={schema}");
    let descriptors = protox::compile(["assent/v1/rpc.proto"], [schema])?;
    let mut builder =
        tonic_prost_build::configure().server_mod_attribute(".", "#[cfg(test)]").bytes(".").skip_debug(["."]);
    for file in descriptors.file.iter().filter(|f| f.name() != "assent/v1/rpc.proto") {
        let messages = file.message_type.iter().map(|m| m.name());
        for name in messages.chain(file.enum_type.iter().map(|e| e.name())) {
            builder =
                builder.extern_path(format!(".assent.v1.{name}"), format!("::assent_proto::wire::{name}"));
        }
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}
