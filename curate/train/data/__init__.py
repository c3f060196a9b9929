"""From shards to batches: which clips, in which order, cut to which shape, with which caption, always the same.

Nothing here is an iterator with a hidden state: a batch is a pure function of the shard set, the configuration and its
position (seed, epoch, index), so that a run resumes in the middle of an epoch by three numbers, whatever the number of
workers or ranks.

Clips are read by one range request each, as the sidecars say where they lie, so that clips are shuffled over the whole
set and not within a window, and decoded without a sandbox: what export encoded is our own file, and what it copied was
decoded in the sandbox when it was scored. A decoder that dies takes its worker along, and stops the run.
"""
