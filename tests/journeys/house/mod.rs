//! The rules of the house: which crate and which module may know which, and what the agent's binary is.

mod agent;
mod crates;
mod modules;
mod pages;
mod sizes;
