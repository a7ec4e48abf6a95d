//! One good message of every type of section 3's table, what is left of it without optional fields,
//! and every way in which a field can be wrong. Written by the rules: nothing here is read by the
//! types that it tests.

use std::collections::BTreeSet;

use choir_protocol::canonical::to_string;
use choir_protocol::json::{self, Object, Value};
use choir_protocol::object;

use super::Case;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Client,
    Server,
    /// A client, over HTTP (section 13).
    Http,
}

impl From {
    const fn as_str(self) -> &'static str {
        match self {
            From::Client => "client",
            From::Server => "server",
            From::Http => "http",
        }
    }
}

/// A type of section 3's table.
pub(crate) struct Type {
    pub(crate) from: From,
    pub(crate) name: &'static str,
    /// Whether it concerns one thread.
    in_thread: bool,
    /// An example with every field.
    payload: &'static str,
    /// `path:what` for each field; `?` after the path of one that may be left out, `~` where something else would be missed then.
    fields: &'static str,
}

pub(crate) const UUID: &str = "01930000-0000-7000-8000-0000000000ab";
const THREAD: &str = "01930000-0000-7000-8000-0000000000aa";
const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const SIG: &str = "_Z1CCuaoMLghXt6cQY4XsXE7ZdZKJ5CfN7YVPMf8bc8saMI8tM4Q1GnSQgLVnBFthmmDzwaEdXf0teER8DBtCw";

const fn of(from: From, name: &'static str, payload: &'static str, fields: &'static str) -> Type {
    Type {
        from,
        name,
        in_thread: false,
        payload,
        fields,
    }
}

const fn in_thread(from: From, name: &'static str, payload: &'static str, fields: &'static str) -> Type {
    Type {
        from,
        name,
        in_thread: true,
        payload,
        fields,
    }
}

/// Those that aren't actions.
const OTHERS: &[Type] = &[
    of(
        From::Client,
        "control.auth",
        r#"{"method":"key","client_id":"tab-1","agent":"choir-test/0.1.0","public_key":"@key","signature":"@sig","token":"a.b.c","session_token":"t"}"#,
        "method:enum(key|token) client_id:client agent:agent public_key:key signature:sig token?:text session_token?:text",
    ),
    of(
        From::Client,
        "control.subscribe",
        r#"{"all":true,"threads":[{"thread_id":"@uuid","cursor":{"seq":0,"root":"@hash"},"streams":["updates","specs"],"mode":"full","history":50,"verify":true,"complete":false}],
           "streams":["approvals"],"mode":"events","history":0,"verify":false,"complete":true}"#,
        "all~:bool threads~:list threads.0:object threads.0.thread_id:uuid threads.0.cursor?:object threads.0.cursor.seq:int threads.0.cursor.root:hash \
         threads.0.streams?:list threads.0.streams.0:enum(updates|specs|approvals) threads.0.mode?:enum(full|events) threads.0.history?:int \
         threads.0.verify?:bool threads.0.complete?:bool streams?:list streams.0:enum(updates|specs|approvals) mode?:enum(full|events) history?:int \
         verify?:bool complete?:bool",
    ),
    of(
        From::Client,
        "control.unsubscribe",
        r#"{"threads":["@uuid"]}"#,
        "threads:list threads.0:uuid",
    ),
    of(
        From::Client,
        "control.ack",
        r#"{"acks":[{"thread_id":"@uuid","seq":256,"root":"@hash"}]}"#,
        "acks:list acks.0:object acks.0.thread_id:uuid acks.0.seq:int acks.0.root?:hash",
    ),
    of(From::Client, "control.heartbeat", "{}", ""),
    of(
        From::Client,
        "control.threads",
        r#"{"scope":"mine","after":"x","limit":50}"#,
        "scope:enum(mine|public) after?:text limit?:int",
    ),
    in_thread(
        From::Client,
        "control.history",
        r#"{"before":12,"limit":200,"streams":["updates"],"verify":true}"#,
        "before:int limit?:int streams?:list streams.0:enum(updates|specs|approvals) verify?:bool",
    ),
    in_thread(
        From::Client,
        "control.members",
        r#"{"after":"x","limit":50}"#,
        "after?:text limit?:int",
    ),
    in_thread(
        From::Client,
        "control.specs",
        r#"{"after":"x","limit":50}"#,
        "after?:text limit?:int",
    ),
    in_thread(From::Client, "control.mark", r#"{"seq":7}"#, "seq:int"),
    in_thread(From::Client, "control.checkpoint", "{}", ""),
    in_thread(
        From::Client,
        "action.user_action",
        r#"{"action_type":"stop","data":{"message":"@uuid"},"to":"people:anna"}"#,
        "action_type:text data?:json to?:user",
    ),
    in_thread(
        From::Client,
        "action.stream",
        r#"{"message":"@uuid","part":1,"text":"so f","ended":true}"#,
        "message:uuid part:int text:text ended?:bool",
    ),
    of(
        From::Server,
        "control.hello",
        r#"{"protocol":"choir.v1","server":{"name":"choir","version":"0.1.0","key":"@key"},"log_id":"@uuid","connection_id":"@uuid","challenge":"@key",
           "auth":["key","token"],"heartbeat":{"interval_ms":30000,"timeout_ms":5000},"limits":{"max_message_bytes":262144,"max_content_bytes":65536,
           "max_clients":20,"max_subscriptions":1000,"max_in_flight":64,"max_replay":10000,"max_actions_per_second":20,"max_requests_per_second":20}}"#,
        "protocol:text server:object server.name:text server.version:text server.key:key log_id:uuid connection_id:uuid challenge:key auth:list \
         auth.0:enum(key|token) heartbeat:object heartbeat.interval_ms:int heartbeat.timeout_ms:int limits:object limits.max_message_bytes:int \
         limits.max_content_bytes:int limits.max_clients:int limits.max_subscriptions:int limits.max_in_flight:int limits.max_replay:int \
         limits.max_actions_per_second:int limits.max_requests_per_second:int",
    ),
    of(
        From::Server,
        "control.session",
        r#"{"user_id":"ed25519:@key","client_id":"tab-1","session_id":"@uuid","session_token":"t","expires_at":1764000000000,"resumed":false,"server_time":1764000000000}"#,
        "user_id:user client_id:client session_id:uuid session_token?:text expires_at?:int resumed:bool server_time:int",
    ),
    in_thread(
        From::Server,
        "control.subscribed",
        r#"{"seq":7,"head":9,"role":"owner","streams":["updates"],"mode":"full","messages":3,"marked":2,"present":["people:anna"]}"#,
        "seq:int head:int role?:enum(owner|co_author|reader) streams:list streams.0:enum(updates|specs|approvals) mode:enum(full|events) messages:int marked:int \
         present?:list present.0:user",
    ),
    of(
        From::Server,
        "control.subscribed",
        r#"{"all":true,"threads":12}"#,
        "threads:int",
    ),
    in_thread(
        From::Server,
        "control.unsubscribed",
        r#"{"cause":"permission_denied"}"#,
        "cause?:text",
    ),
    in_thread(
        From::Server,
        "control.receipt",
        r#"{"status":"committed","seq":12,"kind":"message_posted","root":"@hash"}"#,
        "status:enum(committed|duplicate) seq:int kind:kind root:hash",
    ),
    of(
        From::Server,
        "control.heartbeat",
        r#"{"server_time":1764000000000}"#,
        "server_time:int",
    ),
    of(
        From::Server,
        "control.threads",
        r#"{"threads":[{"thread_id":"@uuid","title":"t","visibility":"private","role":"reader","invited":true,"head":9,"messages":3,"marked":2,"unread":1,
           "awaiting":0,"last_activity":1764000000000}],"next":"x"}"#,
        "threads:list threads.0:object threads.0.thread_id:uuid threads.0.title:text threads.0.visibility:enum(private|public) \
         threads.0.role?:enum(owner|co_author|reader) threads.0.invited?:bool threads.0.head:int threads.0.messages:int threads.0.marked:int \
         threads.0.unread:int threads.0.awaiting:int threads.0.last_activity:int next?:text",
    ),
    in_thread(
        From::Server,
        "control.history",
        r#"{"from":7,"to":9,"root":"@hash","entries":[{"seq":8,"id":"@uuid","kind":"reaction_set","stream":"specs","author":"people:anna","timestamp":1764000000000,
           "body":{"x":null},"content_hash":"@hash","proof":{"sent_at":1764000000000,"seen":[7,"@hash"],"key":"@key","sig":"@sig","audience":"https://choir.example",
           "id":"@uuid","type":"action.set_reaction"}}],"hidden":[[9,"approvals","@hash"]],"peaks":["@hash","@hash","@hash"]}"#,
        "from:int to:int root:hash entries:list entries.0:object entries.0.seq:int entries.0.id:uuid entries.0.kind:text entries.0.stream~:enum(updates|specs|approvals) \
         entries.0.author:user entries.0.timestamp:int entries.0.body~:object entries.0.content_hash~:hash entries.0.proof?:object entries.0.proof.sent_at:int \
         entries.0.proof.seen?:pair entries.0.proof.seen.0:int entries.0.proof.seen.1:hash entries.0.proof.key?:key entries.0.proof.sig:sig \
         entries.0.proof.audience?:origin entries.0.proof.id?:uuid entries.0.proof.type?:text hidden?:list hidden.0:triple hidden.0.0:int \
         hidden.0.1:enum(updates|specs|approvals) hidden.0.2:hash peaks?:list peaks.0:hash",
    ),
    in_thread(
        From::Server,
        "control.members",
        r#"{"members":[{"user_id":"people:anna","role":"co_author","agent":false,"joined":true}],"next":"x"}"#,
        "members:list members.0:object members.0.user_id:user members.0.role:enum(owner|co_author|reader) members.0.agent:bool members.0.joined:bool next?:text",
    ),
    in_thread(
        From::Server,
        "control.specs",
        r#"{"open_specs":[{"spec":"@uuid","author":"people:anna","seq":3,"content_hash":"@hash","body":{"content":"a"},"submitted_at":1,"expires_at":2,
           "decisions":[{"user_id":"people:ben","decision":"request_changes","reason":"no","seq":4}]}],"next":"x"}"#,
        "open_specs:list open_specs.0:object open_specs.0.spec:uuid open_specs.0.author:user open_specs.0.seq:int open_specs.0.content_hash:hash \
         open_specs.0.body:json open_specs.0.submitted_at:int open_specs.0.expires_at:int open_specs.0.decisions:list open_specs.0.decisions.0:object \
         open_specs.0.decisions.0.user_id:user open_specs.0.decisions.0.decision:enum(approve|deny|request_changes) open_specs.0.decisions.0.reason?:text \
         open_specs.0.decisions.0.seq:int next?:text",
    ),
    in_thread(
        From::Server,
        "control.marked",
        r#"{"seq":7,"unread":2}"#,
        "seq:int unread:int",
    ),
    in_thread(
        From::Server,
        "control.checkpoint",
        r#"{"note":"choir.example/threads/x\n"}"#,
        "note:text",
    ),
    of(
        From::Server,
        "control.drain",
        r#"{"retry_after_ms":1500}"#,
        "retry_after_ms:int",
    ),
    in_thread(
        From::Server,
        "state.snapshot",
        r#"{"thread":{"title":"t","audience":"https://choir.example","visibility":"public","review":"readers","propose":"everyone",
           "policy":{"approval":{"at_least":2},"expires_ms":604800000,"admit_authors":false,"agents_decide":true},"created_at":1},
           "members":[{"user_id":"people:anna","role":"owner","agent":false,"joined":true}],"open_specs":[],
           "recent":{"from":0,"to":1,"root":"@hash","entries":[{"seq":1,"id":"@uuid","kind":"message_posted","author":"people:anna","timestamp":1,"erased":3,"content_hash":"@hash"}]},
           "more":{"members":"x","open_specs":"y","recent":true},"reason":"initial"}"#,
        "thread:object thread.title:text thread.audience:origin thread.visibility:enum(private|public) thread.review:enum(co_authors|readers) \
         thread.propose:enum(members|everyone|nobody) thread.policy:object thread.policy.approval~:approval thread.policy.expires_ms~:expires \
         thread.policy.admit_authors~:bool thread.policy.agents_decide~:bool thread.created_at:int members:list members.0:object open_specs:list recent:object \
         recent.from:int recent.to:int recent.root:hash recent.entries:list recent.entries.0.erased~:int recent.entries.0.content_hash?:hash more:object \
         more.members?:text more.open_specs?:text more.recent?:bool reason:enum(initial|too_far_behind|state_desync|view_changed)",
    ),
    in_thread(
        From::Server,
        "state.thread_update",
        r#"{"from":7,"to":9,"root":"@hash","entries":[{"seq":8,"id":"@uuid","kind":"spec_resolved","author":"choir","timestamp":1,
           "body":{"spec":"@uuid","outcome":"denied"},"content_hash":"@hash"}]}"#,
        "from:int to:int root:hash entries:list entries.0:object entries.0.kind:kind entries.0.body~:object",
    ),
    in_thread(
        From::Server,
        "state.approval_request",
        r#"{"spec":"@uuid","seq":3,"author":"people:anna","content_hash":"@hash","content_type":"text/markdown","expires_at":1764000000000}"#,
        "spec:uuid seq:int author:user content_hash:hash content_type?:text expires_at:int",
    ),
    in_thread(
        From::Server,
        "event.new_message",
        r#"{"seq":8,"message":"@uuid","content_hash":"@hash","author":"people:anna"}"#,
        "seq:int message:uuid content_hash:hash author:user",
    ),
    in_thread(
        From::Server,
        "event.new_approval",
        r#"{"seq":8,"spec":"@uuid","content_hash":"@hash","decision":"deny"}"#,
        "seq:int spec:uuid content_hash:hash decision:enum(approve|deny|request_changes)",
    ),
    in_thread(
        From::Server,
        "event.state_change",
        r#"{"seq":8,"change_type":"spec_resolved","spec":"@uuid","outcome":"approved"}"#,
        "seq:int change_type:kind spec?:uuid outcome?:enum(approved|denied|expired|author_left)",
    ),
    in_thread(
        From::Server,
        "event.user_action",
        r#"{"user_id":"people:anna","action_type":"typing","data":{"x":[1.5]}}"#,
        "user_id:user action_type:text data?:json",
    ),
    in_thread(
        From::Server,
        "event.stream",
        r#"{"message":"@uuid","author":"people:anna","from":0,"to":3,"text":"so far","ended":true}"#,
        "message:uuid author:user from:int to:int text:text ended?:bool",
    ),
    of(
        From::Server,
        "error.connection",
        r#"{"code":"rate_limited","message":"too many","retryable":true,"retry_after_ms":500,"cause":"actions"}"#,
        "code:code(rate_limited|invalid_message|internal|superseded) message:text retryable:bool retry_after_ms?:int cause?:text",
    ),
    in_thread(
        From::Server,
        "error.state",
        r#"{"code":"sequence_gap","message":"expected 3","retryable":true,"expected":3,"server_time":1}"#,
        "code:code(sequence_gap|clock_skew|conflict|not_found) message:text retryable:bool expected?:int server_time?:int",
    ),
];

/// Type, payload and fields of each signed action.
const ACTIONS: &[(&str, &str, &str)] = &[
    (
        "action.create_thread",
        r#"{"title":"t","audience":"https://choir.example","visibility":"public","review":"readers","propose":"everyone",
           "policy":{"approval":"majority","expires_ms":604800000,"admit_authors":true,"agents_decide":false},
           "members":[{"user_id":"people:anna","role":"co_author","agent":true}],"agent":false,"salt":"@salt"}"#,
        "title:text audience:origin visibility?:enum(private|public) review?:enum(co_authors|readers) propose?:enum(members|everyone|nobody) policy?:object \
         policy.approval?:approval policy.expires_ms?:expires policy.admit_authors?:bool policy.agents_decide?:bool members?:list members.0:object \
         members.0.user_id:user members.0.role:enum(owner|co_author|reader) members.0.agent?:bool agent?:bool salt:salt",
    ),
    (
        "action.submit_message",
        r#"{"content":"hello","content_type":"text/plain","parent":"@uuid","salt":"@salt"}"#,
        "content:json content_type?:media parent?:uuid salt:salt",
    ),
    (
        "action.revise_spec",
        r#"{"spec":"@uuid","content":{"tool":"sh"},"content_type":"application/json","parent":"@uuid","salt":"@salt"}"#,
        "spec:uuid content:json content_type?:media parent?:uuid salt:salt",
    ),
    ("action.withdraw_spec", r#"{"spec":"@uuid"}"#, "spec:uuid"),
    (
        "action.process_approval",
        r#"{"spec":"@uuid","content_hash":"@hash","decision":"request_changes","reason":"why not","salt":"@salt"}"#,
        "spec:uuid content_hash:hash decision:enum(approve|deny|request_changes) reason~:text salt:salt",
    ),
    (
        "action.edit_message",
        r#"{"message":"@uuid","content":[1,null],"content_type":"text/x; charset=utf-8","salt":"@salt"}"#,
        "message:uuid content:json content_type?:media salt:salt",
    ),
    ("action.redact_message", r#"{"message":"@uuid"}"#, "message:uuid"),
    (
        "action.update_thread",
        r#"{"title":"t","visibility":"private","review":"co_authors","propose":"nobody","policy":{"approval":"any"},"salt":"@salt"}"#,
        "title~:text visibility?:enum(private|public) review?:enum(co_authors|readers) propose?:enum(members|everyone|nobody) policy?:object \
         policy.approval?:approval salt:salt",
    ),
    (
        "action.add_member",
        r#"{"user_id":"people:anna","role":"reader","agent":true}"#,
        "user_id:user role:enum(owner|co_author|reader) agent?:bool",
    ),
    ("action.remove_member", r#"{"user_id":"people:anna"}"#, "user_id:user"),
    ("action.join", r#"{"agent":true}"#, "agent?:bool"),
];

/// Every type of section 3's table, both directions, and the actions over HTTP.
pub(crate) fn types() -> Vec<Type> {
    let action = |from| {
        let of = move |&(name, payload, fields)| in_thread(from, name, payload, fields);
        ACTIONS.iter().map(of)
    };
    let (client, server) = OTHERS.split_at(13);
    let copy = |t: &Type| Type { ..*t };
    client
        .iter()
        .map(copy)
        .chain(action(From::Client))
        .chain(action(From::Http))
        .chain(server.iter().map(copy))
        .collect()
}

/// A field of a type: its path from the envelope on.
#[derive(Clone)]
pub(crate) struct Field {
    pub(crate) path: String,
    pub(crate) may_go: bool,
    is_due: bool,
    pub(crate) what: &'static str,
}

impl Type {
    pub(crate) fn is_action(&self) -> bool {
        ACTIONS.iter().any(|(name, ..)| *name == self.name)
    }

    /// The fields of the envelope that belong to the type, and those of its payload.
    pub(crate) fn fields(&self) -> Vec<Field> {
        let envelope = match self.from {
            From::Client if self.is_action() => "seq:seq seen?:pair seen.0:int seen.1:hash sig:sig",
            From::Http => "seen?:pair seen.0:int seen.1:hash sig:sig key:key audience:origin",
            From::Client => "",
            From::Server => "reply_to?:uuid",
        };
        let thread = match (self.in_thread, self.from) {
            (true, From::Server) => "thread_id~:uuid",
            (true, _) => "thread_id:uuid",
            (false, _) => "",
        };
        let base = "id:uuid type~:type timestamp:int payload:object";
        let split = |spec: &'static str, prefix: &'static str| {
            spec.split_ascii_whitespace().map(move |field| {
                let (path, what) = field.split_once(':').unwrap();
                let name = path.trim_end_matches(['?', '~']);
                Field {
                    path: format!("{prefix}{name}"),
                    may_go: path.ends_with('?'),
                    is_due: path == name,
                    what,
                }
            })
        };
        split(base, "")
            .chain(split(thread, ""))
            .chain(split(envelope, ""))
            .chain(split(self.fields, "payload."))
            .collect()
    }

    /// The example with every field.
    pub(crate) fn whole(&self) -> Object {
        let payload = filled(self.payload);
        let mut message = object! {
            "id": UUID, "type": self.name, "timestamp": json::parse("1764000000000").unwrap(), "payload": payload,
        };
        if self.in_thread {
            message.insert("thread_id", THREAD);
        }
        if self.from == From::Server {
            message.insert("reply_to", UUID);
            return message;
        }
        if self.is_action() {
            message.insert("seen", filled(r#"[41,"@hash"]"#));
            message.insert("sig", SIG);
            if self.from == From::Http {
                message.insert("key", filled("\"@key\""));
                message.insert("audience", "https://choir.example");
            } else {
                message.insert("seq", 7);
            }
        }
        message
    }
}

fn filled(text: &str) -> Value {
    let text = text
        .replace("@uuid", UUID)
        .replace("@hash", HASH)
        .replace("@salt", super::log::SALT)
        .replace("@key", "IEi5-7jdORrezwE0GPZ0ofeQXkDs_sMjoVMArYZ7RiQ")
        .replace("@sig", SIG);
    json::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Puts another value at a path, or takes away what is there. False where there is nothing.
pub(crate) fn change(value: &mut Value, path: &str, to: Option<Value>) -> bool {
    let (name, rest) = path
        .split_once('.')
        .map_or((path, None), |(name, rest)| (name, Some(rest)));
    match value {
        Value::Object(object) => {
            let Some(mut inner) = object.remove(name) else {
                return false;
            };
            let found = match (rest, to) {
                (Some(rest), to) => change(&mut inner, rest, to),
                (None, Some(to)) => {
                    inner = to;
                    true
                }
                (None, None) => return true,
            };
            object.insert(name, inner);
            found
        }
        Value::Array(items) => {
            let at = name.parse::<usize>().unwrap();
            match (items.get_mut(at), rest, to) {
                (None, ..) => false,
                (Some(inner), Some(rest), to) => change(inner, rest, to),
                (Some(inner), None, Some(to)) => {
                    *inner = to;
                    true
                }
                (Some(_), None, None) => {
                    items.remove(at);
                    true
                }
            }
        }
        _ => false,
    }
}

/// The message with a text in the place of a value, whether or not that is JSON that may be.
fn with_raw(message: &Object, path: &str, raw: &str) -> String {
    const PLACE: &str = "here it goes";
    let mut value = Value::from(message.clone());
    if !change(&mut value, path, Some(PLACE.into())) {
        let Value::Object(object) = &mut value else { panic!() };
        match path.strip_prefix("payload.") {
            Some(name) => {
                let mut payload = object.remove("payload").and_then(Value::into_object).unwrap();
                payload.insert(name, PLACE);
                object.insert("payload", payload);
            }
            None => {
                object.insert(path, PLACE);
            }
        }
    }
    to_string(&value).replace(&format!("\"{PLACE}\""), raw)
}

/// What is no value of this sort: a word for it, and the JSON.
fn wrong(what: &str) -> Vec<(&'static str, &'static str)> {
    let of_text = ("a number", "7");
    match what {
        "int" | "seq" | "expires" => vec![
            ("a text", "\"7\""),
            ("a fraction", "7.5"),
            ("written with a fraction", "7.0"),
            ("written with an exponent", "7e0"),
            ("negative", "-1"),
            ("too large", "9007199254740992"),
        ],
        "bool" => vec![("a number", "1"), ("a text", "\"true\"")],
        "text" | "kind" => vec![of_text],
        "type" => vec![of_text, ("null", "null")],
        "uuid" => vec![
            of_text,
            ("upper case", "\"01930000-0000-7000-8000-0000000000AB\""),
            ("without hyphens", "\"019300000000700080000000000000ab\""),
        ],
        "hash" => vec![
            of_text,
            (
                "upper case",
                "\"E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855\"",
            ),
            ("short", "\"e3b0\""),
        ],
        "salt" => vec![
            of_text,
            ("15 bytes", "\"MmG0qPvlS0fAEJscxxqc\""),
            ("17 bytes", "\"MmG0qPvlS0fAEJscxxqctQA\""),
            ("not canonical", "\"MmG0qPvlS0fAEJscxxqctR\""),
            ("padded", "\"MmG0qPvlS0fAEJscxxqctQ==\""),
        ],
        "key" => vec![
            of_text,
            ("31 bytes", "\"IEi5-7jdORrezwE0GPZ0ofeQXkDs_sMjoVMArYZ7Rg\""),
            ("not canonical", "\"IEi5-7jdORrezwE0GPZ0ofeQXkDs_sMjoVMArYZ7RiR\""),
            (
                "the standard alphabet",
                "\"IEi5+7jdORrezwE0GPZ0ofeQXkDs/sMjoVMArYZ7RiQ\"",
            ),
        ],
        "sig" => vec![
            of_text,
            ("empty", "\"\""),
            (
                "not canonical",
                "\"_Z1CCuaoMLghXt6cQY4XsXE7ZdZKJ5CfN7YVPMf8bc8saMI8tM4Q1GnSQgLVnBFthmmDzwaEdXf0teER8DBtCx\"",
            ),
        ],
        "user" => vec![
            of_text,
            ("empty", "\"\""),
            ("a control character", "\"people:an\\u0085na\""),
        ],
        "client" => vec![of_text, ("empty", "\"\""), ("a blank", "\"tab 1\"")],
        "agent" => vec![of_text],
        "origin" => vec![
            of_text,
            ("a path", "\"https://choir.example/\""),
            ("upper case", "\"https://Choir.example\""),
            ("the default port", "\"https://choir.example:443\""),
            ("wss", "\"wss://choir.example\""),
        ],
        "media" => vec![of_text, ("empty", "\"\""), ("no subtype", "\"text\"")],
        "approval" => vec![
            of_text,
            ("unknown", "\"most\""),
            ("an empty object", "{}"),
            ("at least 0", "{\"at_least\":0}"),
            ("at least a fraction", "{\"at_least\":1.5}"),
            ("at least a negative number", "{\"at_least\":-1}"),
        ],
        "list" => vec![("an object", "{}"), ("a text", "\"x\"")],
        "pair" | "triple" => vec![
            ("an object", "{}"),
            ("empty", "[]"),
            ("one too few", "[7]"),
            ("too many", "[7,\"x\",\"x\",7]"),
        ],
        "object" => vec![("an array", "[]"), ("a text", "\"x\"")],
        "json" => vec![],
        // A code of a later version is taken by its `retryable` (section 11).
        what if what.starts_with("code") => vec![of_text],
        what if what.starts_with("enum") => vec![
            of_text,
            ("unknown", "\"something_else\""),
            ("upper case", "\"UPDATES\""),
        ],
        other => panic!("{other}"),
    }
}

/// What of a bad message its answer names.
#[derive(Clone, Copy)]
struct Names {
    id: bool,
    thread: bool,
    seq: bool,
}

/// Those that are committed: each way of being wrong once for each sort of field and sender, and one for each
/// field of an envelope or a payload that isn't inside another.
pub(crate) fn cases() -> Vec<Case> {
    made(&mut Some(BTreeSet::new()))
}

/// Each way of being wrong for each field.
pub(crate) fn every() -> Vec<Case> {
    made(&mut None)
}

/// The sorts of fields that were wrong in every way before.
type Shown = Option<BTreeSet<(&'static str, &'static str)>>;

fn made(shown: &mut Shown) -> Vec<Case> {
    let mut cases = vec![];
    for t in types() {
        good(&t, &mut cases);
        bad(&t, shown, &mut cases);
    }
    let find = |from, name: &str| {
        let mut types = types().into_iter();
        types.find(|t| t.from == from && t.name == name).unwrap()
    };
    for (name, of, path, raw) in GOOD {
        let t = find(From::Client, of);
        let text = with_raw(&t.whole(), path, raw);
        let canonical = to_string(&json::parse(&text).unwrap());
        cases.push(self::case(&t, name, text, object! { "ok": canonical }));
    }
    for (name, of, path, raw) in BAD {
        let t = find(From::Client, of);
        let names = Names {
            id: true,
            thread: t.in_thread,
            seq: t.is_action() && *path != "seq",
        };
        let text = with_raw(&t.whole(), path, raw);
        cases.push(self::case(
            &t,
            &format!("bad: {name}"),
            text,
            refused("invalid_message", names),
        ));
    }
    let mark = find(From::Client, "control.mark");
    for name in [
        "control.hello",
        "state.snapshot",
        "event.new_message",
        "error.state",
        "control.nothing",
        "mark",
        "",
    ] {
        let names = Names {
            id: true,
            thread: true,
            seq: false,
        };
        let text = with_raw(&mark.whole(), "type", &format!("\"{name}\""));
        cases.push(self::case(
            &mark,
            &format!("bad: type {name:?}"),
            text,
            refused("unknown_type", names),
        ));
    }
    let join = find(From::Client, "action.join");
    let text = with_raw(&join.whole(), "type", "\"action.react\"");
    let names = Names {
        id: true,
        thread: true,
        seq: true,
    };
    cases.push(self::case(
        &join,
        "bad: an action of a later version",
        text,
        refused("unknown_type", names),
    ));
    let drain = find(From::Server, "control.drain");
    let text = with_raw(&drain.whole(), "type", "\"event.of_a_later_version\"");
    cases.push(self::case(
        &drain,
        "of a later version",
        text,
        object! { "unknown": "event.of_a_later_version" },
    ));

    let whole = to_string(&mark.whole().into());
    let nothing = Names {
        id: false,
        thread: false,
        seq: false,
    };
    for (name, text) in [
        ("empty", String::new()),
        ("not JSON", whole.replacen('}', "", 1)),
        ("more after it", format!("{whole}{{}}")),
        ("an array", format!("[{whole}]")),
        ("null", "null".to_owned()),
        ("a byte order mark", format!("\u{feff}{whole}")),
        ("a name twice", whole.replacen('{', r#"{"type":"control.mark","#, 1)),
        (
            "a name twice in the payload",
            whole.replacen(r#"{"seq":7}"#, r#"{"seq":7,"s\u0065q":7}"#, 1),
        ),
        (
            "a lone surrogate",
            whole.replacen(r#"{"seq":7}"#, r#"{"seq":7,"x":"\ud800"}"#, 1),
        ),
        (
            "33 deep",
            whole.replacen(
                r#"{"seq":7}"#,
                &format!(r#"{{"seq":7,"x":{}{}}}"#, "[".repeat(31), "]".repeat(31)),
                1,
            ),
        ),
    ] {
        cases.push(self::case(
            &mark,
            &format!("bad: {name}"),
            text,
            refused("invalid_message", nothing),
        ));
    }
    cases
}

fn good(t: &Type, cases: &mut Vec<Case>) {
    let whole = Value::from(t.whole());
    let canonical = to_string(&whole);
    cases.push(case(
        t,
        "every field",
        canonical.clone(),
        object! { "ok": canonical.as_str() },
    ));

    let mut least = whole.clone();
    for field in t.fields().iter().rev().filter(|field| field.may_go) {
        change(&mut least, &field.path, None);
    }
    if least != whole {
        let canonical = to_string(&least);
        cases.push(case(
            t,
            "only what is due",
            canonical.clone(),
            object! { "ok": canonical },
        ));
    }

    // Ignored outside the payload of a signed action, kept inside (E3).
    let unknown = object! { "x": Value::Array(vec![Value::Null, 0.5.try_into().map(Value::Number).unwrap()]) };
    let mut message = t.whole();
    let mut payload = message.remove("payload").and_then(Value::into_object).unwrap();
    payload.insert("of a later version", unknown.clone());
    message.insert("payload", payload);
    let kept = if t.is_action() {
        to_string(&message.clone().into())
    } else {
        canonical
    };
    message.insert("of_a_later_version", unknown);
    cases.push(case(
        t,
        "unknown fields",
        to_string(&message.into()),
        object! { "ok": kept },
    ));
}

fn bad(t: &Type, shown: &mut Shown, cases: &mut Vec<Case>) {
    let whole = t.whole();
    for field in t.fields() {
        // What is posted differs in its envelope alone.
        if shown.is_some() && t.from == From::Http && field.path.starts_with("payload.") {
            continue;
        }
        let sort = field.what.split('(').next().unwrap_or_default();
        let is_new = shown.as_mut().is_none_or(|shown| shown.insert((t.from.as_str(), sort)));
        if !is_new && field.path.matches('.').count() > 1 {
            continue;
        }
        let names = |is_json: bool| Names {
            id: is_json && field.path != "id",
            thread: is_json && t.in_thread && field.path != "thread_id",
            seq: is_json && t.from == From::Client && t.is_action() && !["seq", "type"].contains(&field.path.as_str()),
        };
        let name = field.path.as_str();
        let mut without = Value::from(whole.clone());
        let is_item = name
            .rsplit('.')
            .next()
            .is_some_and(|last| last.parse::<usize>().is_ok());
        if (field.is_due || name == "type") && !is_item && change(&mut without, name, None) {
            let text = to_string(&without);
            cases.push(case(
                t,
                &format!("bad: no {name}"),
                text,
                refused("invalid_message", names(true)),
            ));
        }
        let null = ("null", "null");
        let nulls = !["json", "type"].contains(&field.what);
        let ways = nulls.then_some(null).into_iter().chain(wrong(field.what));
        for (how, raw) in ways.take(if is_new { usize::MAX } else { 1 }) {
            // The envelope's fields are the same everywhere.
            let is_envelope = [
                "id",
                "type",
                "timestamp",
                "thread_id",
                "sig",
                "seen",
                "seen.0",
                "seen.1",
            ]
            .contains(&name);
            if is_envelope && !["control.mark", "action.submit_message", "event.stream"].contains(&t.name) {
                continue;
            }
            let text = with_raw(&whole, name, raw);
            let is_json = how != "too large";
            cases.push(case(
                t,
                &format!("bad: {name}: {how}"),
                text,
                refused("invalid_message", names(is_json)),
            ));
        }
    }
}

fn refused(code: &'static str, names: Names) -> Object {
    object! {
        "code": code,
        "id"?: names.id.then_some(UUID),
        "thread_id"?: names.thread.then_some(THREAD),
        "seq"?: names.seq.then_some(7),
    }
}

fn case(t: &Type, name: &str, text: String, out: Object) -> Case {
    let name = format!("{} of a {}: {name}", t.name, t.from.as_str());
    let input = object! { "from": t.from.as_str(), "text": text };
    Case::new(name, &["E1", "E2", "E3", "E4"], input, out)
}

/// A name, the type, the path of the field, and what stands there.
type Row = (&'static str, &'static str, &'static str, &'static str);

const GOOD: &[Row] = &[
    ("content of null", "action.submit_message", "payload.content", "null"),
    ("content of a number", "action.submit_message", "payload.content", "0.1"),
    (
        "content of an array",
        "action.submit_message",
        "payload.content",
        "[[],{}]",
    ),
    (
        "approved without a reason",
        "action.process_approval",
        "payload",
        r#"{"spec":"01930000-0000-7000-8000-0000000000ab","content_hash":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","decision":"approve","salt":"MmG0qPvlS0fAEJscxxqctQ"}"#,
    ),
    (
        "a spec open for 1 minute",
        "action.create_thread",
        "payload.policy",
        r#"{"expires_ms":60000}"#,
    ),
    (
        "a spec open for 90 days",
        "action.create_thread",
        "payload.policy",
        r#"{"expires_ms":7776000000}"#,
    ),
    ("a policy of defaults", "action.create_thread", "payload.policy", "{}"),
    (
        "at least 1",
        "action.create_thread",
        "payload.policy",
        r#"{"approval":{"at_least":1}}"#,
    ),
    (
        "only a policy",
        "action.update_thread",
        "payload",
        r#"{"policy":{},"salt":"MmG0qPvlS0fAEJscxxqctQ"}"#,
    ),
    ("the last number", "action.join", "seq", "9007199254740991"),
    (
        "seen of 0",
        "action.join",
        "seen",
        r#"[0,"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]"#,
    ),
    ("only all", "control.subscribe", "payload", r#"{"all":true}"#),
    ("only threads", "control.subscribe", "payload", r#"{"threads":[]}"#),
    ("data of null", "action.user_action", "payload.data", "null"),
];

const BAD: &[Row] = &[
    ("seq of 0", "action.join", "seq", "0"),
    (
        "attachments, which are reserved",
        "action.submit_message",
        "payload.attachments",
        "[]",
    ),
    (
        "mentions, which are reserved",
        "action.submit_message",
        "payload.mentions",
        "[]",
    ),
    (
        "attachments of null",
        "action.edit_message",
        "payload.attachments",
        "null",
    ),
    ("mentions without content", "action.join", "payload.mentions", "[]"),
    (
        "a spec",
        "action.submit_message",
        "payload.spec",
        "\"01930000-0000-7000-8000-0000000000ab\"",
    ),
    ("a spec of null", "action.submit_message", "payload.spec", "null"),
    (
        "changes requested without a reason",
        "action.process_approval",
        "payload",
        r#"{"spec":"01930000-0000-7000-8000-0000000000ab","content_hash":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","decision":"request_changes","salt":"MmG0qPvlS0fAEJscxxqctQ"}"#,
    ),
    (
        "names no setting",
        "action.update_thread",
        "payload",
        r#"{"salt":"MmG0qPvlS0fAEJscxxqctQ"}"#,
    ),
    (
        "names only a setting of a later version",
        "action.update_thread",
        "payload",
        r#"{"colour":"red","salt":"MmG0qPvlS0fAEJscxxqctQ"}"#,
    ),
    (
        "a spec open for less than a minute",
        "action.create_thread",
        "payload.policy",
        r#"{"expires_ms":59999}"#,
    ),
    (
        "a spec open for more than 90 days",
        "action.create_thread",
        "payload.policy",
        r#"{"expires_ms":7776000001}"#,
    ),
    (
        "less than a minute in an update",
        "action.update_thread",
        "payload.policy",
        r#"{"expires_ms":0}"#,
    ),
    (
        "a member twice",
        "action.create_thread",
        "payload.members",
        r#"[{"user_id":"a:b","role":"reader"},{"user_id":"a:b","role":"owner"}]"#,
    ),
    (
        "choir as a member",
        "action.create_thread",
        "payload.members",
        r#"[{"user_id":"choir","role":"reader"}]"#,
    ),
    (
        "choir as a new member",
        "action.add_member",
        "payload.user_id",
        "\"choir\"",
    ),
    (
        "a member as an array",
        "action.create_thread",
        "payload.members",
        r#"[["people:anna","reader",true]]"#,
    ),
    (
        "a cursor as a pair",
        "control.subscribe",
        "payload.threads.0.cursor",
        r#"[0,"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]"#,
    ),
    ("names nothing", "control.subscribe", "payload", "{}"),
    (
        "all is false and there are no threads",
        "control.subscribe",
        "payload",
        r#"{"all":false}"#,
    ),
    (
        "an agent of 129 bytes",
        "control.auth",
        "payload.agent",
        "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"",
    ),
    (
        "a client id of 65 characters",
        "control.auth",
        "payload.client_id",
        "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"",
    ),
];
