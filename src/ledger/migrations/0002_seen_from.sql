-- One address's blocks are counted at each call for another.
CREATE INDEX blocks_seen_from ON blocks (seen_from);
