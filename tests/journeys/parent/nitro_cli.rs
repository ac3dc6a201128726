//! AWS's own launcher on the same machine: it starts our images, we start those of AWS's library,
//! and both give the driver the same commands.

use super::Box;

#[test]
#[cfg_attr(not(parent), ignore = "needs the parent instance: run scripts/test")]
fn nitro_cli_starts_what_we_build() {
    let _scene = Box::new(&[]);
}
