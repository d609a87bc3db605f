//! The parts of the power-cut test: [`workload`] makes images and says what each must hold, [`check`] opens one and looks,
//! [`cuts`] does so for all of them.

pub(crate) mod check;
pub(crate) mod cuts;
pub(crate) mod workload;
