//! Builds sandboxd statically and leaves it in `OUT_DIR`, from where `src/sandbox/embed.rs` takes its bytes.
//!
//! A nested cargo in a target directory of its own: the outer one holds the lock of the usual one. What the outer cargo
//! says about compilers' wrappers and flags is for the outer build only.

use std::{
    collections::hash_map::DefaultHasher,
    env, fs,
    hash::Hasher,
    io,
    path::{Path, PathBuf},
    process::Command,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let triple = env::var("TARGET")?;
    let crate_dir = root.join("sandbox/sandboxd");
    for input in ["build.rs", "Cargo.toml", "Cargo.lock", "sandbox/sandboxd/Cargo.toml", "sandbox/sandboxd/src"] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    let build = fingerprint(&root, &crate_dir)?;
    println!("cargo::rustc-env=SANDBOXD_BUILD={build}");

    let target_dir = out.join("sandboxd-target");
    let status = Command::new(env::var("CARGO")?)
        .current_dir(&root)
        .args(["build", "--locked", "--package", "sandboxd", "--profile", "sandboxd", "--target", &triple])
        .arg("--target-dir")
        .arg(&target_dir)
        .env("SANDBOXD_BUILD", &build)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("CARGO_TARGET_DIR")
        .status()?;
    if !status.success() {
        return Err(format!("sandboxd does not build for {triple}: {status}").into());
    }
    // Two megabytes of relocations, all read at the start, in a hundredth of the room; glibc knows the form since 2.36.
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    fs::copy(target_dir.join(&triple).join("sandboxd/sandboxd"), out.join("sandboxd.bin"))?;
    Ok(())
}

/// A short hash of all that decides what sandboxd is.
fn fingerprint(root: &Path, crate_dir: &Path) -> io::Result<String> {
    let mut files = vec![root.join("Cargo.toml"), root.join("Cargo.lock"), crate_dir.join("Cargo.toml")];
    for entry in fs::read_dir(crate_dir.join("src"))? {
        files.push(entry?.path());
    }
    files.sort();
    let mut hash = DefaultHasher::new();
    for file in files {
        hash.write(file.file_name().unwrap_or_default().as_encoded_bytes());
        hash.write(&fs::read(file)?);
    }
    Ok(format!("{:016x}", hash.finish()))
}
