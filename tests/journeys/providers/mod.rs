//! Where the broker's credentials come from: what each service is asked, and what its refusals
//! become.

mod ecr;
mod gitlab;
mod harbor;
mod sessions;
mod sharing;
mod sts;
