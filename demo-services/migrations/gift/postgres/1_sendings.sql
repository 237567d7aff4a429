-- Four tables: what was asked for, how far it is for each receiver, and what each user has received. The constraints repeat
-- what the code sees to, so that a bug in it is refused here.

CREATE TABLE sendings (
    seq              BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    biz_id           TEXT    NOT NULL UNIQUE,                -- the caller's name for it
    gift_id          BIGINT  NOT NULL,
    gift_name        TEXT    NOT NULL,                       -- name and price as they were when it was sent
    coin             BIGINT  NOT NULL CHECK (coin > 0),
    from_uid         BIGINT  NOT NULL,
    scene_id         BIGINT  NOT NULL,
    created_ms       BIGINT  NOT NULL,                       -- milliseconds since 1970, as all times here
    under_way        BIGINT  NOT NULL CHECK (under_way >= 0), -- receipts that have not ended
    claimed_by       TEXT    NOT NULL,                       -- who carries it on ...
    claimed_until_ms BIGINT  NOT NULL                        -- ... unless it is not heard of until then
);

CREATE INDEX sendings_to_claim ON sendings (claimed_until_ms) WHERE under_way > 0;

CREATE TABLE receipts (
    sending       BIGINT  NOT NULL REFERENCES sendings (seq),
    to_uid        BIGINT  NOT NULL,
    place         BIGINT  NOT NULL,                          -- in the order of the request
    state         TEXT    NOT NULL CHECK (state IN ('freezing', 'delivering', 'confirming', 'refunding',
                                                    'received', 'refunded', 'refused')),
    tx_id         TEXT    NOT NULL,                          -- the balance service's; empty before coins were frozen
    deliver_by_ms BIGINT  NOT NULL,                          -- later it is not delivered: its coins may go back
    reason        TEXT    NOT NULL,                          -- why it ended, or ends, without the gift
    PRIMARY KEY (sending, to_uid),
    UNIQUE (sending, place)
);

-- The newest position of each user: whoever delivers to a user counts on here, so that positions are committed in their
-- order and a reader passes over none.
CREATE TABLE inboxes (
    uid      BIGINT  NOT NULL PRIMARY KEY,
    position BIGINT  NOT NULL CHECK (position > 0)
);

CREATE TABLE received (
    uid          BIGINT  NOT NULL,
    position     BIGINT  NOT NULL,
    sending      BIGINT  NOT NULL,
    delivered_ms BIGINT  NOT NULL,
    taken_back   BIGINT  NOT NULL DEFAULT 0 CHECK (taken_back IN (0, 1)), -- it was not paid for
    PRIMARY KEY (uid, position),
    UNIQUE (sending, uid),                                   -- nothing is delivered twice
    FOREIGN KEY (sending, uid) REFERENCES receipts (sending, to_uid)
);
