//! Sets `cfg(sandbox)` if everything is there that the journeys through QEMU, registries and
//! emulators of AWS need, and `cfg(parent)` if there is a parent instance, too: `scripts/test`
//! installs it and names it in the environment.

const NEEDED: [&str; 4] = [
    "REDOUBT_LIB",
    "REDOUBT_TEST_REGISTRY",
    "REDOUBT_TEST_MINISTACK",
    "REDOUBT_TEST_MOTO",
];

/// An archive of Debian's programs, from `scripts/test-programs`.
const PROGRAMS: &str = "REDOUBT_TEST_PROGRAMS";
/// What `scripts/parent prepare` made.
const PARENT: &str = "REDOUBT_TEST_PARENT";

fn main() {
    emit("rustc-check-cfg=cfg(sandbox)");
    for variable in NEEDED {
        emit(&format!("rerun-if-env-changed={variable}"));
    }
    if NEEDED.iter().all(|name| std::env::var_os(name).is_some()) {
        emit("rustc-cfg=sandbox");
    }
    emit("rustc-check-cfg=cfg(programs)");
    emit(&format!("rerun-if-env-changed={PROGRAMS}"));
    if std::env::var_os(PROGRAMS).is_some() {
        emit("rustc-cfg=programs");
    }
    emit("rustc-check-cfg=cfg(parent)");
    emit(&format!("rerun-if-env-changed={PARENT}"));
    if std::env::var_os(PARENT).is_some() {
        emit("rustc-cfg=parent");
    }
}

fn emit(instruction: &str) {
    println!("cargo::{instruction}");
}
