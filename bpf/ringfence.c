/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Drops the SIP requests of blocked accounts, where packets come in (tc ingress).
 *
 * A request over UDP to one of the ports is read up to its empty line. Whoever its Authorization and Proxy-Authorization name
 * (username and realm) is looked up: first from everywhere, then from the packet's source. Without such a header, From counts,
 * but only of what a server challenges whoever sends it: the From of an INVITE may be a caller's number, from a carrier. An
 * entry counts until its deadline on the clock that runs since boot, whoever is there to remove it. Everything else passes: what
 * is no request, what is behind the first 2048 bytes or in a later fragment, datagrams that were put together, what is for other
 * hosts, what cannot be understood.
 *
 * The state of the reading lives in the memory of a map, where the verifier does not follow its values; each step of the loop
 * takes at least one byte, or goes to a state that does. Words of 8 bytes are looked at at once. The model of this parser, in
 * Rust, is src/matcher/bpf/model.rs.
 */
#include "kernel.h"

/* Of the content of a packet, so many bytes are read. */
#define TEXT 2048
/* A word behind the text can be loaded, and a search may look so far ahead. */
#define AHEAD 72
/* After so many newlines, commas, quotes and backslashes nobody reads on: each is a step. */
#define MARKS 256
/* More steps are never needed. */
#define STEPS 8192

/* The longest that an account has, in bytes. */
#define MAX_USER 128
#define MAX_DOMAIN 253

/* Which account, and from where. */
struct key {
	/* SipHash-2-4 of the account, keyed: who does not know the secret finds no two accounts with the same. The lowest bit of
	 * the second word says something else: whether it is from the source alone. */
	u64 account[2];
	/* IPv6, or IPv4 in IPv6; zero for everywhere. */
	u8 source[16];
};

#define FROM_SOURCE 1ULL

struct entry {
	/* On the boot clock, in nanoseconds. */
	u64 until;
	/* Packets dropped. */
	u64 hits;
};

struct settings {
	u64 secret[2];
	/* Which program was attached, as its loader knows it. */
	u64 program;
	/* Nobody is blocked before that, on the boot clock in nanoseconds. */
	u64 paused;
	/* A bit for each port. */
	u8 ports[8192];
};

struct {
	UINT(type, MAP_HASH);
	UINT(max_entries, 131072);
	UINT(map_flags, MAP_NO_PREALLOC);
	TYPE(key, struct key);
	TYPE(value, struct entry);
} blocked SECTION(".maps");

struct {
	UINT(type, MAP_ARRAY);
	UINT(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, struct settings);
} settings SECTION(".maps");

enum state {
	/* At the beginning of a line. */
	LINE,
	/* In a line that is of no interest. */
	SKIP,
	/* Behind the name of a header, before its colon. */
	COLON,
	/* Before the scheme of credentials. */
	SCHEME,
	/* Before the name of a parameter. */
	PARAMETER,
	/* In a parameter that is of no interest. */
	OTHER,
	/* The same, in quotes. */
	QUOTED,
	/* Behind the name of a parameter that is wanted. */
	EQUALS,
	/* Behind its equals sign. */
	VALUE,
	/* In its value. */
	QUOTED_VALUE,
	PLAIN_VALUE,
	/* In From, before the address; and in quotes there. */
	FROM,
	FROM_QUOTED,
	/* At an address. */
	ADDRESS,
	/* In its user part, and in what is behind. */
	USER,
	PASSWORD,
	HOST,
	/* An account is known. */
	DECODE,
	JUDGE,
};

enum header {
	AUTHORIZATION,
	FROM_HEADER,
};

enum part {
	USERNAME,
	REALM,
};

/* A part of the text; nobody's name if it is empty. */
struct piece {
	u16 at;
	u16 length;
};

struct reading {
	/* Somebody uses it. */
	u64 busy;
	u64 secret[2];
	u8 source[16];
	/* From the network header on: where UDP begins, and where the packet ends. */
	u32 udp;
	u32 end;
	u8 is_v6;
	/* Which protocol comes next. */
	u8 next;
	/* More of the datagram follows in other packets. */
	u8 fragment;
	/* Bytes of the text. */
	u32 length;
	/* The next of them. */
	u32 at;
	u32 state;
	/* The text goes on where nobody sees it. */
	u8 cut;
	/* The first line was there. */
	u8 begun;
	/* Without credentials, From counts. */
	u8 challenged;
	/* There are credentials. */
	u8 credentials;
	u8 blocked;
	/* Of the header that is being read. */
	u8 header;
	u8 wanted;
	u8 known[2];
	/* What follows From has been reached. */
	u8 reading_from;
	u16 value;
	struct piece account[2];
	/* Where the content of the first From begins; zero without one. */
	u32 from;
	/* Newlines, commas, quotes and backslashes passed. */
	u32 marks;
	/* Where the user part is decoded from and to. */
	u32 decode_from;
	u32 decode_to;
	u8 text[TEXT + AHEAD];
};

struct {
	UINT(type, MAP_PERCPU_ARRAY);
	UINT(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, struct reading);
} scratch SECTION(".maps");

/* -- words of eight bytes -- */

#define EACH(byte) (0x0101010101010101ULL * (byte))
/* Letters in lower case. Other bytes change too, so what is no letter has to be compared by itself. */
#define LOWER(word) ((word) | EACH(0x20))

#define WORD(a, b, c, d, e, f, g, h)                                                                                   \
	((u64)(a) | (u64)(b) << 8 | (u64)(c) << 16 | (u64)(d) << 24 | (u64)(e) << 32 | (u64)(f) << 40 | (u64)(g) << 48 |  \
	 (u64)(h) << 56)
#define FIRST(bytes) (~0ULL >> (64 - 8 * (bytes)))

INLINE u64 load(const u8 *at)
{
	return *(const u64 *)at;
}

/* 0x80 in the first zero byte, and perhaps in later bytes. */
INLINE u64 zeros(u64 word)
{
	return (word - EACH(0x01)) & ~word & EACH(0x80);
}

/* The first byte that has its 0x80. */
INLINE u32 first(u64 marks)
{
	return (u32)(((((marks & -marks) - 1) & EACH(0x01)) * EACH(0x01)) >> 56) - 1;
}

#define NEWLINE_AHEAD 64

/* How many bytes there are before the next newline; NEWLINE_AHEAD, or more, if it is not among so many. */
INLINE u32 to_newline(const u8 *at)
{
	for (u32 i = 0; i < NEWLINE_AHEAD; i += 8) {
		u64 marks = zeros(load(at + i) ^ EACH('\n'));
		if (marks)
			return i + first(marks);
	}
	return NEWLINE_AHEAD;
}

/* 0x80 in the first byte below `limit`, and perhaps in later bytes. */
INLINE u64 below(u64 word, u8 limit)
{
	return (word - EACH(limit)) & ~word & EACH(0x80);
}

/* All searches but that for newlines look so far ahead. */
#define LOOK_AHEAD 32

#define SEARCH(at, word, marks)                                                                                        \
	do {                                                                                                           \
		for (u32 i = 0; i < LOOK_AHEAD; i += 8) {                                                              \
			u64 word = load((at) + i);                                                                     \
			u64 found = (marks);                                                                           \
			if (found)                                                                                     \
				return i + first(found);                                                               \
		}                                                                                                      \
		return LOOK_AHEAD;                                                                                     \
	} while (0)

/* How many bytes there are before the first newline, `a`, `b` or `c`; LOOK_AHEAD, or more, if it is not among so many. */
INLINE u32 to_any(const u8 *at, u8 a, u8 b, u8 c)
{
	SEARCH(at, word, zeros(word ^ EACH('\n')) | zeros(word ^ EACH(a)) | zeros(word ^ EACH(b)) | zeros(word ^ EACH(c)));
}

/* The same for a blank, a control character or a comma. */
INLINE u32 to_value_end(const u8 *at)
{
	SEARCH(at, word, below(word, 0x21) | zeros(word ^ EACH(',')));
}

/* The same for a blank, a control character, or one of , : ; > ? (of which two pairs differ in one bit). */
INLINE u32 to_host_end(const u8 *at)
{
	SEARCH(at, word,
	       below(word, 0x21) | zeros(word ^ EACH(',')) | zeros((word & EACH(0xfe)) ^ EACH(':')) |
		       zeros((word & EACH(0xfe)) ^ EACH('>')));
}

/* 0x80 in each zero byte, and in no other. */
INLINE u64 all_zeros(u64 word)
{
	return ~((((word & EACH(0x7f)) + EACH(0x7f)) | word) | EACH(0x7f));
}

/* How many of the next eight bytes are blanks, before the first that is none. */
INLINE u32 blanks(u64 word)
{
	u64 others = ~(all_zeros(word ^ EACH(' ')) | all_zeros(word ^ EACH('\t')) | all_zeros(word ^ EACH('\r'))) & EACH(0x80);
	return others ? first(others) : 8;
}

/* ASCII letters in lower case, and nothing else changed. */
INLINE u64 lower_exactly(u64 word)
{
	u64 seven = word & EACH(0x7f);
	u64 beyond_z = seven + EACH(0x7f - 'Z');
	u64 from_a = seven + EACH(0x80 - 'A');
	return word | ((from_a ^ beyond_z) & ~word & EACH(0x80)) >> 2;
}

INLINE int is_blank(u8 byte)
{
	return byte == ' ' || byte == '\t';
}

/* 16, or more, if it is none. */
INLINE u8 hex_digit(u8 byte)
{
	u8 letter = (byte | 0x20) - 'a';
	return letter < 6 ? letter + 10 : (u8)(byte - '0') < 10 ? byte - '0' : 16;
}

/* -- SipHash-2-4 with 128 bits -- */

struct sip {
	u64 a, b, c, d;
};

#define ROTATE(x, n) ((x) << (n) | (x) >> (64 - (n)))

INLINE void round(struct sip *s)
{
	s->a += s->b;
	s->b = ROTATE(s->b, 13) ^ s->a;
	s->a = ROTATE(s->a, 32);
	s->c += s->d;
	s->d = ROTATE(s->d, 16) ^ s->c;
	s->a += s->d;
	s->d = ROTATE(s->d, 21) ^ s->a;
	s->c += s->b;
	s->b = ROTATE(s->b, 17) ^ s->c;
	s->c = ROTATE(s->c, 32);
}

INLINE void absorb(struct sip *s, u64 word)
{
	s->d ^= word;
	round(s);
	round(s);
	s->a ^= word;
}

INLINE u64 squeeze(struct sip *s)
{
	for (int i = 0; i < 4; i++)
		round(s);
	return s->a ^ s->b ^ s->c ^ s->d;
}

INLINE u64 pad(u64 word, u32 left)
{
	return left >= 8 ? word : word & FIRST(left);
}

/* The hash of the user part and the domain, each filled up with zeros to whole words, and of their lengths in seven bytes. */
INLINE int hash(struct reading *r, u64 *to)
{
	u32 user_at = r->account[USERNAME].at, user = r->account[USERNAME].length;
	u32 domain_at = r->account[REALM].at, domain = r->account[REALM].length;
	if (user == 0 || user > MAX_USER || domain == 0 || domain > MAX_DOMAIN)
		return 0;
	struct sip s = {
		r->secret[0] ^ 0x736f6d6570736575ULL,
		r->secret[1] ^ 0x646f72616e646f6dULL ^ 0xee,
		r->secret[0] ^ 0x6c7967656e657261ULL,
		r->secret[1] ^ 0x7465646279746573ULL,
	};
	for (u32 i = 0; i < MAX_USER; i += 8) {
		if (i >= user)
			break;
		u32 at = (user_at + i) & (TEXT - 1);
		OPAQUE(at);
		absorb(&s, pad(load(r->text + at), user - i));
	}
	for (u32 i = 0; i < MAX_DOMAIN; i += 8) {
		if (i >= domain)
			break;
		u32 at = (domain_at + i) & (TEXT - 1);
		OPAQUE(at);
		absorb(&s, pad(lower_exactly(load(r->text + at)), domain - i));
	}
	/* Read again: the verifier has bounded them in as many ways as the loops end. */
	user = *(volatile u16 *)&r->account[USERNAME].length;
	domain = *(volatile u16 *)&r->account[REALM].length;
	absorb(&s, (u64)user | (u64)domain << 16 | (u64)((user + 7) / 8 * 8 + (domain + 7) / 8 * 8 + 7) << 56);
	s.c ^= 0xee;
	to[0] = squeeze(&s);
	s.b ^= 0xdd;
	to[1] = squeeze(&s);
	return 1;
}

/* -- blocks -- */

INLINE int is_blocked_by(const struct key *key)
{
	struct entry *entry = map_lookup(&blocked, key);
	if (!entry || entry->until <= boot_clock())
		return 0;
	__sync_fetch_and_add(&entry->hits, 1);
	return 1;
}

/* Whether the account is blocked, and counts. */
static NOINLINE int is_blocked(struct reading *r)
{
	struct key key = {};
	if (!r || !hash(r, key.account))
		return 0;
	key.account[1] &= ~FROM_SOURCE;
	if (is_blocked_by(&key))
		return 1;
	key.account[1] |= FROM_SOURCE;
	__builtin_memcpy(key.source, r->source, sizeof(key.source));
	return is_blocked_by(&key);
}

/* -- the message -- */

struct context {
	struct reading *reading;
	struct packet *packet;
};

enum { GO_ON = 0, STOP = 1 };

/* Whether a server challenges everybody who sends a request of this method, and believes no From. */
INLINE int is_challenged(const u8 *p)
{
	u64 word = load(p);
	if (word == WORD('R', 'E', 'G', 'I', 'S', 'T', 'E', 'R'))
		return is_blank(p[8]);
	if (word == WORD('S', 'U', 'B', 'S', 'C', 'R', 'I', 'B'))
		return p[8] == 'E' && is_blank(p[9]);
	return (word & FIRST(7)) == WORD('P', 'U', 'B', 'L', 'I', 'S', 'H', 0) && is_blank(p[7]);
}

/* The line at `at` that is not empty: the first one, or a header. */
INLINE int line(struct reading *r, const u8 *p, u32 at)
{
	u64 word = LOWER(load(p));
	u8 c = word & 0xff;
	if (!r->begun) {
		r->begun = 1;
		/* A response names an account of ours, to which the request went. */
		if (c < 'a' || c > 'z' || ((word & FIRST(3)) == WORD('s', 'i', 'p', 0, 0, 0, 0, 0) && p[3] == '/'))
			return STOP;
		r->challenged = is_challenged(p);
		r->state = SKIP;
		return GO_ON;
	}
	u32 name = 0;
	if (c == 'a') {
		if (word == WORD('a', 'u', 't', 'h', 'o', 'r', 'i', 'z') &&
		    (LOWER(load(p + 8)) & FIRST(5)) == WORD('a', 't', 'i', 'o', 'n', 0, 0, 0))
			name = 13;
	} else if (c == 'p') {
		if (word == WORD('p', 'r', 'o', 'x', 'y', '-', 'a', 'u') && p[5] == '-' &&
		    LOWER(load(p + 8)) == WORD('t', 'h', 'o', 'r', 'i', 'z', 'a', 't') &&
		    (LOWER(load(p + 16)) & FIRST(3)) == WORD('i', 'o', 'n', 0, 0, 0, 0, 0))
			name = 19;
	} else if (c == 'f') {
		if ((word & FIRST(4)) == WORD('f', 'r', 'o', 'm', 0, 0, 0, 0))
			name = 4;
		else
			name = 1;
	}
	if (name == 0) {
		r->state = SKIP;
		return GO_ON;
	}
	r->header = c == 'f' ? FROM_HEADER : AUTHORIZATION;
	r->at = at + name;
	r->state = COLON;
	return GO_ON;
}

/* All headers were seen: without credentials, From may count. */
INLINE int headers_end(struct reading *r)
{
	if (r->credentials || !r->challenged || !r->from)
		return STOP;
	r->reading_from = 1;
	r->at = r->from;
	r->state = FROM;
	return GO_ON;
}

INLINE void take(struct reading *r, u32 part, u32 at, u32 length)
{
	if (part != USERNAME)
		part = REALM;
	r->known[part] = 1;
	r->account[part].at = at;
	r->account[part].length = length;
}

/* A parameter's value is known. */
INLINE void valued(struct reading *r, u32 length)
{
	take(r, r->wanted, r->value, length);
	r->state = r->known[USERNAME] && r->known[REALM] ? JUDGE : OTHER;
}

/* The state at which a newline, a comma, a quote or a backslash is passed: STOP after too many. */
INLINE long mark(struct reading *r, u32 state)
{
	r->state = state;
	return ++r->marks > MARKS ? STOP : GO_ON;
}

static long step(u32 number, struct context *context)
{
	struct reading *r = context->reading;
	u32 at = r->at, state = r->state;
	(void)number;
	OPAQUE(at);
	if (at > TEXT + 7)
		return STOP;
	const u8 *p = r->text + at;

	if (state == SKIP) {
		u32 ahead = to_newline(p);
		if (ahead >= NEWLINE_AHEAD) {
			r->at = at + NEWLINE_AHEAD;
			return GO_ON;
		}
		at += ahead + 1;
		OPAQUE(at);
		r->at = at;
		if (mark(r, LINE) == STOP || at > TEXT + 7)
			return STOP;
		p = r->text + at;
		state = LINE;
	}
	u8 c = *p;
	switch (state) {
	case LINE:
		if (at >= r->length)
			/* Behind what was cut off, there may be credentials. */
			return r->cut ? STOP : headers_end(r);
		if (c == '\n' || (c == '\r' && p[1] == '\n')) {
			r->at = at + 1 + (c == '\r');
			if (r->at > r->length && r->cut)
				return STOP;
			return r->begun ? headers_end(r) : mark(r, LINE);
		}
		return line(r, p, at);

	case OTHER:
	case QUOTED:
	case QUOTED_VALUE: {
		u32 ahead = state == OTHER ? to_any(p, '"', ',', ',') : to_any(p, '"', '\\', '\\');
		if (ahead >= LOOK_AHEAD) {
			r->at = at + LOOK_AHEAD;
			return GO_ON;
		}
		at += ahead;
		p += ahead;
		c = *p;
		r->at = at + 1;
		if (state == QUOTED_VALUE) {
			/* No account has a newline or a backslash in its name. */
			valued(r, c == '"' ? at - r->value : 0);
			r->at = at + (c == '"');
			if (c != '"' && r->state != JUDGE)
				r->state = QUOTED;
			return mark(r, r->state);
		}
		if (c == '\n')
			return mark(r, is_blank(p[1]) ? state : LINE);
		if (c == ',') {
			/* As a rule there is a blank. */
			r->at = at + 1 + is_blank(p[1]);
			return mark(r, PARAMETER);
		}
		if (c == '"')
			return mark(r, state == OTHER ? QUOTED : OTHER);
		r->at = at + 1 + (p[1] != '\n');
		return mark(r, QUOTED);
	}

	case PLAIN_VALUE: {
		u32 ahead = to_value_end(p);
		if (ahead < LOOK_AHEAD) {
			at += ahead;
			if (at >= r->length && r->cut)
				return STOP;
			valued(r, at - r->value);
			r->at = at;
		} else {
			r->at = at + LOOK_AHEAD;
		}
		return GO_ON;
	}

	case JUDGE:
		r->blocked = is_blocked(r);
		r->state = SKIP;
		return r->blocked || r->reading_from ? STOP : GO_ON;

	case FROM:
	case FROM_QUOTED: {
		u32 ahead = state == FROM ? to_any(p, '"', '<', '<') : to_any(p, '"', '\\', '\\');
		if (ahead >= LOOK_AHEAD) {
			r->at = at + LOOK_AHEAD;
			return GO_ON;
		}
		at += ahead;
		p += ahead;
		c = *p;
		r->at = at + 1;
		if (c == '<')
			return mark(r, ADDRESS);
		if (c == '"')
			return mark(r, state == FROM ? FROM_QUOTED : FROM);
		if (c == '\\') {
			r->at = at + 1 + (p[1] != '\n');
			return mark(r, FROM_QUOTED);
		}
		if (is_blank(p[1]))
			return mark(r, state);
		/* No brackets: the address is what it begins with. */
		r->at = r->from;
		return mark(r, ADDRESS);
	}

	case USER:
	case PASSWORD: {
		u32 ahead = state == USER ? to_any(p, '@', '>', ':') : to_any(p, '@', '>', '>');
		if (ahead >= LOOK_AHEAD) {
			r->at = at + LOOK_AHEAD;
			return GO_ON;
		}
		at += ahead;
		c = p[ahead];
		r->at = at + 1;
		if (c != '@' && c != ':')
			return STOP;
		if (state == USER)
			r->account[USERNAME].length = at - r->account[USERNAME].at;
		r->account[REALM].at = at + 1;
		r->state = c == '@' ? HOST : PASSWORD;
		return GO_ON;
	}

	case HOST: {
		u32 begin = r->account[REALM].at;
		u32 brackets = begin <= TEXT && r->text[begin] == '[';
		u32 ahead = brackets ? to_any(p, ']', '>', '>') : to_host_end(p);
		if (ahead >= LOOK_AHEAD) {
			r->at = at + LOOK_AHEAD;
			return GO_ON;
		}
		r->account[REALM].length = at + ahead + (p[ahead] == ']' && brackets) - begin;
		r->decode_from = r->decode_to = r->account[USERNAME].at;
		r->state = DECODE;
		return GO_ON;
	}

	case DECODE: {
		u32 from = r->decode_from, to = r->decode_to, begin = r->account[USERNAME].at;
		u32 end = begin + r->account[USERNAME].length;
		if (end - begin > 3 * MAX_USER)
			return STOP;
		OPAQUE(from);
		OPAQUE(to);
		if (from > TEXT || to > TEXT)
			return STOP;
		if (from >= end) {
			r->account[USERNAME].length = to - begin;
			r->state = JUDGE;
			return GO_ON;
		}
		if (from == to) {
			/* Up to the first escape, nothing moves. */
			u32 ahead = to_any(r->text + from, '%', '%', '%');
			if (ahead > end - from)
				ahead = end - from;
			r->decode_from = r->decode_to = from + ahead;
			if (ahead)
				return GO_ON;
		}
		u8 byte = r->text[from];
		u32 taken = 1;
		if (byte == '%' && from + 2 < end) {
			u8 high = hex_digit(r->text[from + 1]), low = hex_digit(r->text[from + 2]);
			if (high < 16 && low < 16) {
				byte = high << 4 | low;
				taken = 3;
			}
		}
		r->text[to] = byte;
		r->decode_to = to + 1;
		r->decode_from = from + taken;
		return GO_ON;
	}
	}

	/* In all others, blanks are passed over, and all but COLON go on where a line is folded. */
	u64 word = load(p);
	if (is_blank(c) || (c == '\r' && state != COLON)) {
		r->at = at + (state == COLON ? 1 : blanks(word));
		return GO_ON;
	}
	if (c == '\n' && state != COLON) {
		r->at = at + 1;
		if (is_blank(p[1]))
			return mark(r, state);
		return r->reading_from ? STOP : mark(r, LINE);
	}
	word = LOWER(word);
	switch (state) {
	case COLON:
		r->state = SKIP;
		if (c != ':')
			return GO_ON;
		r->at = at + 1;
		if (r->header == FROM_HEADER) {
			if (!r->from)
				r->from = at + 1;
			return GO_ON;
		}
		r->credentials = 1;
		r->known[USERNAME] = 0;
		r->known[REALM] = 0;
		r->state = SCHEME;
		return GO_ON;

	case SCHEME: {
		u8 behind = p[6];
		r->state = SKIP;
		if ((word & FIRST(6)) == WORD('d', 'i', 'g', 'e', 's', 't', 0, 0) &&
		    (is_blank(behind) || behind == '\r' || behind == '\n')) {
			r->at = at + 6;
			r->state = PARAMETER;
		}
		return GO_ON;
	}

	case PARAMETER: {
		u32 length = 0;
		if (c == ',') {
			r->at = at + 1;
			return mark(r, PARAMETER);
		}
		if (word == WORD('u', 's', 'e', 'r', 'n', 'a', 'm', 'e') && !r->known[USERNAME]) {
			r->wanted = USERNAME;
			length = 8;
		} else if ((word & FIRST(5)) == WORD('r', 'e', 'a', 'l', 'm', 0, 0, 0) && !r->known[REALM]) {
			r->wanted = REALM;
			length = 5;
		}
		r->at = at + length;
		r->state = length ? EQUALS : OTHER;
		/* As a rule nothing is between name, equals sign and quotes. */
		if (length && p[length] == '=' && p[length + 1] == '"') {
			r->at = r->value = at + length + 2;
			return mark(r, QUOTED_VALUE);
		}
		return GO_ON;
	}

	case EQUALS:
		r->state = c == '=' ? VALUE : OTHER;
		r->at = at + (c == '=');
		return GO_ON;

	case VALUE:
		r->value = at + (c == '"');
		r->at = r->value;
		return c == '"' ? mark(r, QUOTED_VALUE) : (r->state = PLAIN_VALUE, GO_ON);

	case ADDRESS: {
		u32 scheme = 0;
		if ((word & FIRST(3)) == WORD('s', 'i', 'p', 0, 0, 0, 0, 0)) {
			if (p[3] == ':')
				scheme = 4;
			else if ((p[3] | 0x20) == 's' && p[4] == ':')
				scheme = 5;
		}
		if (scheme == 0)
			return STOP;
		r->at = at + scheme;
		r->account[USERNAME].at = at + scheme;
		r->state = USER;
		return GO_ON;
	}
	}
	return STOP;
}

/* -- the packet -- */

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_SERVICE_VLAN 0x88a8

#define UDP 17
#define HOP_BY_HOP 0
#define ROUTING 43
#define FRAGMENT 44
#define AUTHENTICATION 51
#define DESTINATION 60
#define MOBILITY 135
#define HIP 139
#define SHIM6 140
#define NO_NEXT 59

/* Nobody needs more, and more are not looked through. */
#define MAX_TAGS 2
#define MAX_EXTENSIONS 8

/* UDP begins no later, in bytes. */
#define FURTHEST 0x8000

/* Headers of all layers are within so many bytes. */
#define HEADERS 256

/* From the network header on; also where a driver left it in pages. */
INLINE int get(struct packet *packet, u32 offset, void *to, u32 length)
{
	if (!load_relative(packet, offset, to, length, FROM_NETWORK_HEADER))
		return 1;
	u32 all = packet->len, wanted = offset + length + HEADERS;
	if (pull_data(packet, all < wanted ? all : wanted))
		return 0;
	return !load_relative(packet, offset, to, length, FROM_NETWORK_HEADER);
}

struct ipv4 {
	u8 version_length, service;
	u16 length, id, fragment;
	u8 hops, protocol;
	u16 checksum;
	u8 source[4], destination[4];
};

struct ipv6 {
	u8 version_class, class_flow, flow[2];
	u16 length;
	u8 next, hops;
	u8 source[16], destination[16];
};

struct udp {
	u16 source, destination, length, checksum;
};

/* Goes on behind a header that stands before UDP's. Of a fragment that is not the first, nothing is behind it. */
static long pass_extension(u32 number, struct context *context)
{
	struct reading *r = context->reading;
	u32 at = r->udp;
	u8 next = r->next, header[8];
	(void)number;
	if (next != HOP_BY_HOP && next != ROUTING && next != FRAGMENT && next != AUTHENTICATION && next != DESTINATION &&
	    next != MOBILITY && next != HIP && next != SHIM6)
		return STOP;
	r->next = NO_NEXT;
	if (at > FURTHEST || !get(context->packet, at, header, sizeof(header)))
		return STOP;
	if (next == FRAGMENT) {
		if (header[2] || header[3] & 0xf8)
			return STOP;
		r->fragment = header[3] & 1;
		at += 8;
	} else if (next == AUTHENTICATION) {
		at += (header[1] + 2) * 4;
	} else {
		at += (header[1] + 1) * 8;
	}
	r->udp = at;
	r->next = header[0];
	return GO_ON;
}

/* What the headers say. It lies in the memory of the map too: where UDP begins would be verified for each possible value. */
INLINE int find_udp(struct packet *packet, struct reading *r)
{
	u32 at = 0;
	u16 protocol = BIG_ENDIAN_16(packet->protocol);
	/* The first tag is out of the packet already, as a rule. */
	for (int i = 0; i < MAX_TAGS; i++) {
		if (protocol != ETHERTYPE_VLAN && protocol != ETHERTYPE_SERVICE_VLAN)
			break;
		u16 tag[2];
		if (!get(packet, at, tag, sizeof(tag)))
			return 0;
		protocol = BIG_ENDIAN_16(tag[1]);
		at += sizeof(tag);
	}
	if (protocol == ETHERTYPE_IPV4) {
		struct ipv4 ip;
		if (!get(packet, at, &ip, sizeof(ip)))
			return 0;
		u32 header = (ip.version_length & 0xf) * 4;
		u16 offset = BIG_ENDIAN_16(ip.fragment);
		if (ip.version_length >> 4 != 4 || header < sizeof(ip) || ip.protocol != UDP || offset & 0x1fff)
			return 0;
		r->fragment = (offset & 0x2000) != 0;
		r->end = at + BIG_ENDIAN_16(ip.length);
		r->udp = at + header;
		r->is_v6 = 0;
		__builtin_memset(r->source, 0, 10);
		r->source[10] = r->source[11] = 0xff;
		__builtin_memcpy(r->source + 12, ip.source, sizeof(ip.source));
		return 1;
	}
	if (protocol != ETHERTYPE_IPV6)
		return 0;
	struct ipv6 ip;
	if (!get(packet, at, &ip, sizeof(ip)) || ip.version_class >> 4 != 6)
		return 0;
	at += sizeof(ip);
	r->fragment = 0;
	r->end = at + BIG_ENDIAN_16(ip.length);
	r->udp = at;
	r->is_v6 = 1;
	__builtin_memcpy(r->source, ip.source, sizeof(ip.source));
	r->next = ip.next;
	if (r->next != UDP) {
		struct context context = { r, packet };
		loop(MAX_EXTENSIONS, pass_extension, &context, 0);
	}
	return r->next == UDP;
}

/* Loads the content into the text; whether there is one to be read. */
INLINE int load_text(struct packet *packet, struct reading *r, struct settings *s)
{
	u32 at = r->udp, end = r->end;
	struct udp udp;
	if (at > FURTHEST || !get(packet, at, &udp, sizeof(udp)))
		return 0;
	u16 port = BIG_ENDIAN_16(udp.destination);
	if (!(s->ports[port >> 3] >> (port & 7) & 1))
		return 0;
	u32 length = BIG_ENDIAN_16(udp.length);
	at += sizeof(udp);
	/* Linux takes that for all that is there. */
	if (r->is_v6 && length == 0)
		length = 0xffff;
	if (length <= sizeof(udp) || end <= at)
		return 0;
	length -= sizeof(udp);
	r->cut = 0;
	if (length > end - at) {
		length = end - at;
		r->cut = r->fragment;
	}
	if (length > TEXT) {
		length = TEXT;
		r->cut = 1;
	}
	/* There is one byte at least. Said in this way, verifiers before Linux 6.8 know it too. */
	length--;
	OPAQUE(length);
	length = (length & (TEXT - 1)) + 1;
	if (!get(packet, at, r->text, length))
		return 0;
	/* Every search ends here, also of what goes over two lines. */
	__builtin_memset(r->text + length, '\n', 8);
	r->length = length;
	return 1;
}

/* Whether the packet is a request of somebody who is blocked. */
INLINE int is_of_blocked(struct packet *packet, struct reading *r, struct settings *s)
{
	if (!find_udp(packet, r) || !load_text(packet, r, s) || (s->paused && s->paused > boot_clock()))
		return 0;
	r->secret[0] = s->secret[0];
	r->secret[1] = s->secret[1];
	r->at = 0;
	r->state = LINE;
	r->begun = 0;
	r->challenged = 0;
	r->credentials = 0;
	r->blocked = 0;
	r->reading_from = 0;
	r->from = 0;
	r->marks = 0;
	struct context context = { r, packet };
	loop(STEPS, step, &context, 0);
	return r->blocked;
}

SECTION("classifier")
int ringfence(struct packet *packet)
{
	/* Several datagrams of one sender (GRO): who is blocked by one of them may not be who sends another. */
	if (packet->gso_size || packet->pkt_type == PACKET_OTHERHOST)
		return PASS;
	u32 zero = 0;
	struct reading *r = map_lookup(&scratch, &zero);
	struct settings *s = map_lookup(&settings, &zero);
	/* Where the kernel is preemptible throughout (PREEMPT_RT), one packet's reading may be put off for another's. */
	if (!r || !s || __sync_lock_test_and_set(&r->busy, 1))
		return PASS;
	int blocked = is_of_blocked(packet, r, s);
	/* Known before the memory is another's. */
	OPAQUE(blocked);
	*(volatile u64 *)&r->busy = 0;
	return blocked ? DROP : PASS;
}

char license_text[] SECTION("license") = "Dual MIT/GPL";
