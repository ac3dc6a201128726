//! What is wrong with a spec.

/// The longest `enclave.toml` or `enclave.json`, in bytes.
pub const MAX_LEN: usize = 256 * 1024;

/// Why a text is not a usable spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Its length in bytes, more than [`MAX_LEN`].
    #[error("the spec is {0} bytes long; the limit is {MAX_LEN}")]
    TooLong(usize),
    /// Not TOML (or, in an image, not JSON), or not with these keys: the parser's message, which
    /// quotes the line.
    #[error("{0}")]
    Syntax(String),
    /// A key holds a value that it cannot have.
    #[error("{key}: {problem}")]
    Value {
        /// The key, with its sections where they matter: `network.egress`.
        key: &'static str,
        /// What is wrong with the value.
        problem: InvalidValue,
    },
    /// Neither the spec nor the image says what to run.
    #[error("the image has neither Entrypoint nor Cmd; name the program in [run] command")]
    NoCommand,
}

/// What is wrong with a value of a spec. Variants that hold a `String` hold the value as it was
/// written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidValue {
    /// Memory or CPUs beyond what an enclave can have.
    #[error("memory_mib must be 64 to 1048576, and cpus 1 to 128")]
    Resources,
    /// Processes or memory beyond what a workload can be limited to.
    #[error("pids must be 8 to 4194304, and memory_percent 10 to 95")]
    Limits,
    /// An idle time that no stream has.
    #[error("idle_seconds must be 1 to 86400")]
    IdleSeconds,
    /// A limit that nothing could pass.
    #[error("a source address must be let have 1 connection at least")]
    PerSource,
    /// A path that must start with `/`.
    #[error("'{0}' is not absolute")]
    NotAbsolute(String),
    /// Empty, or with `=` in it; in `config.variables` anything but letters, digits and `_`.
    #[error("'{0}' is not a valid variable name")]
    VariableName(String),
    /// A config that becomes an environment sets only what the spec names.
    #[error("the config becomes the environment: name every variable that it may set")]
    VariablesMissing,
    /// A config that becomes a file sets no variables.
    #[error("the config becomes a file, which sets no variables")]
    VariablesOfFile,
    /// A list names something twice.
    #[error("'{0}' is named twice")]
    Repeated(String),
    /// The spec's own environment, or the image's, sets the variable.
    #[error("'{0}' is set by the image or [run] env already")]
    VariableTaken(String),
    /// Neither a user's name nor number.
    #[error("'{0}' is neither the name nor the number of a user")]
    UserName(String),
    /// A register that is not the workload's.
    #[error("PCR{0} is not one of PCR17 to PCR31")]
    Register(u8),
    /// Registers that no user may extend.
    #[error("name the users who may extend registers in attestation.users")]
    UsersMissing,
    /// Not an Ed25519 public key in hexadecimal.
    #[error("'{0}' is not an Ed25519 public key of 64 hexadecimal digits")]
    SealerKey(String),
    /// A measured spec of a version that this crate does not read.
    #[error("{0} is not supported; Redoubt reads version 1")]
    Version(u32),
    /// Linux ends paths, arguments and variables at a NUL byte.
    #[error("holds a NUL byte")]
    NulByte,
    /// More entries in a list than the limit.
    #[error("{count} entries; the limit is {limit}")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// An IP address and a port were expected.
    #[error("'{0}' is not ADDRESS:PORT")]
    NotAnAddress(String),
    /// A forward may listen on loopback only.
    #[error("{0} is not a loopback address")]
    NotLoopback(std::net::SocketAddr),
    /// A forward leads to a destination that the egress list does not cover.
    #[error("{0} is not in network.egress")]
    NotInEgress(String),
    /// An egress rule for addresses that exist only inside the enclave.
    #[error("{0} is inside the enclave: 198.18.0.0/15 and fd00:18::/32 stand for names there")]
    InsideNetwork(String),
    /// A destination without a colon.
    #[error("'{0}' is not HOST:PORT")]
    NotHostAndPort(String),
    /// A destination whose port is not 1 to 65535.
    #[error("'{0}' has no valid port")]
    DestinationPort(String),
    /// A destination whose host is no name and no address; or a rule whose host is also not `*.` and
    /// a name, nor a network that is written as its first address.
    #[error("'{0}' has no valid host")]
    DestinationHost(String),
    /// Neither a name of a signal nor a number of 1 to 64.
    #[error("'{0}' is not a signal")]
    Signal(String),
    /// A sealed config needs the spec's name.
    #[error("a config is sealed for a name: give the spec one")]
    NameMissing,
    /// Something else than the ARN of a KMS key; aliases have none of their own.
    #[error("'{0}' is not the ARN of a key (arn:aws:kms:REGION:ACCOUNT:key/ID)")]
    NotAKeyArn(String),
    /// Not the name of an AWS region.
    #[error("'{0}' is not a region")]
    Region(String),
    /// A name of the encryption context that Redoubt sets.
    #[error("'{0}' is set by Redoubt itself")]
    ReservedContext(&'static str),
    /// The egress list does not let the enclave reach KMS.
    #[error("add \"{0}\" to network.egress: it is the KMS endpoint")]
    KmsNotInEgress(String),
    /// `config.deliver` that is neither `env` nor a usable path.
    #[error(
        "'{0}' is neither \"env\" nor a file in a directory of its own, like \"/run/config/app.json\""
    )]
    Deliver(String),
    /// `[health]` without a check, or with more than one.
    #[error("name exactly one of http, tcp, command and none")]
    HealthChecks,
    /// Times or retries beyond what a health check may have.
    #[error(
        "times must be 1 to 86400 seconds, start_period may be 0, and retries must be 1 to 100"
    )]
    HealthTimes,
    /// A health check that connects to port 0.
    #[error("a port is 1 to 65535")]
    HealthPort,
    /// A health check leads to the workload only.
    #[error("'{0}' is not http://127.0.0.1:PORT/PATH, or the same with localhost or [::1]")]
    HealthUrl(String),
    /// The image has a `Healthcheck` of a form that Docker does not define.
    #[error("the image's HEALTHCHECK is of an unknown kind, '{0}'; set [health] in the spec")]
    Healthcheck(String),
}

impl InvalidValue {
    /// The error for `key`.
    pub(super) fn of(self, key: &'static str) -> SpecError {
        SpecError::Value { key, problem: self }
    }
}
