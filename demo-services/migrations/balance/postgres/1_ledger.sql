-- Three tables: what was asked for, what each account holds, and the double entries that lead from one to the other.
-- The constraints repeat what the code sees to, so that a bug in it is refused here.

CREATE TABLE transactions (
    seq           BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- rises; the order of pages
    tx_id         TEXT   NOT NULL UNIQUE,            -- its name outside
    biz_id        TEXT   NOT NULL UNIQUE,            -- the caller's name for it
    state         TEXT   NOT NULL CHECK (state IN ('frozen', 'confirmed', 'refunded', 'expired', 'added')),
    from_uid      BIGINT NOT NULL,                   -- 0: issued
    to_uid        BIGINT NOT NULL,
    coin          BIGINT NOT NULL CHECK (coin > 0),
    biz_type      BIGINT NOT NULL,
    scene_id      BIGINT NOT NULL,
    receiver_coin BIGINT NOT NULL CHECK (receiver_coin BETWEEN 0 AND coin), -- the share, settled at the start
    created_ms    BIGINT NOT NULL,                   -- milliseconds since 1970, as all times here
    expires_ms    BIGINT,
    completed_ms  BIGINT
);

CREATE INDEX transactions_by_sender ON transactions (from_uid, seq);
CREATE INDEX transactions_by_receiver ON transactions (to_uid, seq);
CREATE INDEX transactions_due ON transactions (expires_ms, seq) WHERE state = 'frozen';

-- Users' accounts only: house and issuer would be touched by every call, and nothing depends on what they hold, so
-- that their balance is the sum of their entries.
CREATE TABLE accounts (
    uid     BIGINT NOT NULL,
    kind    TEXT   NOT NULL CHECK (kind IN ('available', 'frozen')),
    balance BIGINT NOT NULL CHECK (balance >= 0),
    PRIMARY KEY (uid, kind)
);

-- The entries of one step of a transaction add up to zero.
CREATE TABLE entries (
    seq    BIGINT NOT NULL REFERENCES transactions (seq),
    step   BIGINT NOT NULL CHECK (step IN (1, 2)),   -- 1: its beginning, 2: its end
    kind   TEXT   NOT NULL CHECK (kind IN ('available', 'frozen', 'house', 'issuer')),
    uid    BIGINT NOT NULL,                          -- 0: house and issuer
    amount BIGINT NOT NULL CHECK (amount <> 0),      -- what the account gains
    PRIMARY KEY (seq, step, kind, uid)
);
