//! The parts of the power-cut test: [`workload`] makes images and says what each must hold, [`check`] opens one and looks,
//! [`compacted`] knows what compaction may take, [`cuts`] cuts them all.

pub(crate) mod check;
pub(crate) mod compacted;
pub(crate) mod cuts;
pub(crate) mod workload;
