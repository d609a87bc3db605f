//! Rules that the model can do without, one at a time, to show that it notices. The machines are not changed: what goes into them, or comes
//! out, is bent on the way.

/// Which rules are kept. All of them, but in a run that shows what comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Guards {
    /// A log is cut where epochs part, not at the high watermark (R1).
    pub(crate) cuts_by_epoch: bool,
    /// Logs part also where the leader's ends late enough and lacks the follower's last epoch (R2).
    pub(crate) judges_by_epoch: bool,
    /// Who speaks of another leader epoch is refused (R3).
    pub(crate) fences_epochs: bool,
    /// Each fetch is judged by the epoch of its last record (R4).
    pub(crate) judges_each_fetch: bool,
    /// An answer counts for the log that it was asked for (R5).
    pub(crate) knows_its_question: bool,
    /// A log that is to be cut takes no watermark over (R6).
    pub(crate) cuts_before_watermark: bool,
    /// Who joins the in-sync set has reached the start of the leader's epoch (R7).
    pub(crate) joins_from_epoch_start: bool,
    /// A member joins as the start of its broker that fetched (R9).
    pub(crate) joins_by_registration: bool,
    /// What a broker has lost is told before anything is made in its place (R10).
    pub(crate) tells_before_making: bool,
    /// What is acknowledged is synced on the leader (R10).
    pub(crate) leader_counts_synced: bool,
    /// A log that begins again is committed up to there (R12).
    pub(crate) reset_raises_watermark: bool,
    /// Readers are held to the watermark (R13).
    pub(crate) reads_below_watermark: bool,
    /// A follower says what it has synced (R39).
    pub(crate) follower_tells_synced: bool,
    /// What a leader proposes to leave out counts until the cluster has agreed.
    pub(crate) counts_the_larger_set: bool,
    /// Who waits for a leadership is answered when it ends.
    pub(crate) waits_end_with_leadership: bool,
    /// An acknowledgement takes as many replicas in sync as the topic asks for.
    pub(crate) acknowledges_by_min_isr: bool,
    /// A position counts for the state of the partition in which it was stated.
    pub(crate) positions_have_a_state: bool,
    /// A replica stays in sync as it starts where the others could acknowledge nothing.
    pub(crate) stays_as_it_starts: bool,
    /// A replica stays in sync as it is fenced where nobody would lead, or too few were left.
    pub(crate) stays_as_it_is_fenced: bool,
    /// A replica that stayed and has lost its disk says so before it serves.
    pub(crate) says_what_it_lost: bool,
    /// A leader waits for members that do not serve.
    pub(crate) waits_for_all_members: bool,
}

impl Guards {
    pub(crate) const ALL: Guards = Guards {
        cuts_by_epoch: true,
        judges_by_epoch: true,
        fences_epochs: true,
        judges_each_fetch: true,
        knows_its_question: true,
        cuts_before_watermark: true,
        joins_from_epoch_start: true,
        joins_by_registration: true,
        tells_before_making: true,
        leader_counts_synced: true,
        reset_raises_watermark: true,
        reads_below_watermark: true,
        follower_tells_synced: true,
        counts_the_larger_set: true,
        waits_end_with_leadership: true,
        acknowledges_by_min_isr: true,
        positions_have_a_state: true,
        stays_as_it_starts: true,
        stays_as_it_is_fenced: true,
        says_what_it_lost: true,
        waits_for_all_members: true,
    };
}
