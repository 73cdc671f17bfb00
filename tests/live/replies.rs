//! What a client hears through the proxy is, byte for byte, what the owner of the keys says.

use bytes::Bytes;
use slotway::cluster::Slot;
use slotway::resp::Protocol;
use tokio::net::ToSocketAddrs;

use crate::client::{Client, ok, wire};
use crate::cluster::steady;
use crate::front;

/// Scripts of commands divided by `;`, run from nothing, once through the proxy and once at the owner. `%` stands for the
/// hash tag that all keys of a script share.
const SCRIPTS: &[&str] = &[
    "SET %a v; GET %a; GET %b; SET %a w XX GET; SET %b w NX GET; SET %c v EX nonsense; GETSET %a x; GETDEL %a; GET %a",
    "SETEX %a 100 v; TTL %b; PERSIST %a; TTL %a; PSETEX %a 0 v; SETNX %a w; EXPIRETIME %a; EXPIREAT %a 99999999999; EXPIRETIME %a; PEXPIRETIME %a; GETEX %a PERSIST",
    "APPEND %a hello; STRLEN %a; GETRANGE %a 1 3; SUBSTR %a 0 -1; SETRANGE %a 3 p!; GET %a; LCS %a %b; LCS %a %a LEN; LCS %a %a IDX",
    "INCR %a; INCRBY %a 41; DECR %a; DECRBY %a 3; INCRBYFLOAT %a 0.5; INCR %a; SET %b x; INCR %b; INCRBYFLOAT %b 1",
    "MSET %a 1 %b 2; MGET %a %b %c; MSETNX %c 3 %a 4; MSETNX %c 3 %d 4; MSET %a 1 %b; DEL %a %b %z; UNLINK %c; EXISTS %d %d %a; TOUCH %d %a",
    "SET %a v; TYPE %a; TYPE %b; OBJECT ENCODING %a; OBJECT REFCOUNT %a; OBJECT NONSENSE %a; RENAME %a %b; RENAMENX %b %c; RENAME %z %y; COPY %c %d; COPY %c %d REPLACE; DUMP %c; DUMP %z",
    "SETBIT %a 7 1; GETBIT %a 7; BITCOUNT %a; BITPOS %a 1; BITOP NOT %b %a; BITFIELD %a SET u8 0 255 GET u4 4 INCRBY u2 100 1 OVERFLOW FAIL INCRBY u2 100 3; BITFIELD_RO %a GET u8 0; SETBIT %a x 1",
    "HSET %h f v g w; HGET %h f; HGET %h z; HGETALL %h; HKEYS %h; HVALS %h; HLEN %h; HMGET %h f z g; HEXISTS %h f; HDEL %h f z; HINCRBY %h n 5; HINCRBYFLOAT %h n 0.25; HSETNX %h n 1; HSTRLEN %h n; HSCAN %h 0; HRANDFIELD %z; HRANDFIELD %z 5",
    "HSET %h f v; HRANDFIELD %h 1 WITHVALUES; HGETALL %z; HGET %h; HINCRBY %h f 1; GET %h; HMSET %h a b c d; OBJECT ENCODING %h",
    "RPUSH %l a b c; LPUSH %l z; LRANGE %l 0 -1; LLEN %l; LINDEX %l 1; LINDEX %l 99; LINSERT %l BEFORE b x; LPOS %l b; LPOS %l q; LPOS %l a COUNT 0; LREM %l 0 a; LSET %l 0 y; LSET %l 99 y; LTRIM %l 0 1; LRANGE %l 0 -1",
    "RPUSH %l a b c d; LPOP %l; RPOP %l 2; LPOP %z; LPOP %z 3; LMOVE %l %m LEFT RIGHT; RPOPLPUSH %m %l; LMPOP 2 %z %l LEFT COUNT 2; LMPOP 1 %z LEFT; LPUSHX %z a; RPUSHX %l a; LRANGE %l 0 -1; LPOP %l -1",
    "SADD %s a; SISMEMBER %s a; SMISMEMBER %s a b; SMEMBERS %s; SCARD %s; SRANDMEMBER %s; SRANDMEMBER %z 3; SPOP %s; SPOP %z; SPOP %z 2; SMEMBERS %s; SREM %s a; SMOVE %s %t a",
    "SADD %s 1 2 3; SADD %t 2 3 4; SINTER %s %t; SUNION %s %t; SDIFF %s %t; SINTERCARD 2 %s %t; SINTERCARD 2 %s %t LIMIT 1; SINTERSTORE %u %s %t; SDIFFSTORE %u %s %t; SUNIONSTORE %u %s %t; SSCAN %u 0; SMEMBERS %u; SADD %s x; SCARD %s; OBJECT ENCODING %s",
    "ZADD %z 1 a 2.5 b 3 c; ZADD %z XX CH 9 a; ZADD %z INCR 1 a; ZADD %z NX INCR 1 a; ZSCORE %z a; ZSCORE %z q; ZMSCORE %z a q b; ZCARD %z; ZCOUNT %z 2 3; ZRANK %z a; ZRANK %z q; ZREVRANK %z b; ZINCRBY %z 0.1 b; ZLEXCOUNT %z - +",
    "ZADD %z 1 a 2 b 3 c; ZRANGE %z 0 -1; ZRANGE %z 0 -1 WITHSCORES; ZRANGE %z 1 2 BYSCORE WITHSCORES; ZRANGE %z - + BYLEX; ZREVRANGE %z 0 0 WITHSCORES; ZRANGEBYSCORE %z 1 2 WITHSCORES; ZRANGEBYLEX %z [a [b; ZREVRANGEBYSCORE %z 3 1; ZRANGESTORE %y %z 0 1; ZSCAN %z 0; ZRANDMEMBER %q; ZRANDMEMBER %q 3 WITHSCORES",
    "ZADD %z 1 a 2 b 3 c 4 d; ZPOPMIN %z; ZPOPMAX %z 1; ZPOPMIN %q; ZPOPMIN %q 2; ZMPOP 1 %z MIN; ZMPOP 1 %q MAX; ZREM %z a; ZREMRANGEBYRANK %z 0 0; ZREMRANGEBYSCORE %z -inf +inf; ZADD %z inf a; ZRANGE %z 0 -1 WITHSCORES; ZADD %z nan b; ZREMRANGEBYLEX %z [a [z",
    "ZADD %z 1 a 2 b; ZADD %y 3 b 4 c; ZUNION 2 %z %y WITHSCORES; ZINTER 2 %z %y WITHSCORES; ZDIFF 2 %z %y WITHSCORES; ZINTERCARD 2 %z %y; ZUNIONSTORE %x 2 %z %y WEIGHTS 2 0.5; ZINTERSTORE %x 2 %z %y AGGREGATE MAX; ZDIFFSTORE %x 2 %z %y; ZRANGE %x 0 -1 WITHSCORES",
    "XADD %x 1-1 f v; XADD %x 1-2 f w g x; XADD %x 1-1 f v; XADD %x NOMKSTREAM 2-1 f v; XADD %q NOMKSTREAM 2-1 f v; XLEN %x; XRANGE %x - +; XREVRANGE %x + - COUNT 1; XREAD COUNT 1 STREAMS %x 0; XREAD STREAMS %x $; XREAD STREAMS %x %q 1 0; XDEL %x 1-1; XTRIM %x MAXLEN 1; XSETID %x 9-9; XINFO STREAM %x",
    "XGROUP CREATE %x g $ MKSTREAM; XADD %x 1-1 f v; XREADGROUP GROUP g c STREAMS %x >; XREADGROUP GROUP g c STREAMS %x >; XPENDING %x g; XACK %x g 1-1; XPENDING %x g; XGROUP CREATECONSUMER %x g d; XGROUP CREATE %x g $; XGROUP DELCONSUMER %x g d; XINFO GROUPS %x; XREADGROUP GROUP q c STREAMS %x >; XAUTOCLAIM %x g c 0 0; XCLAIM %x g c 0 1-1; XGROUP SETID %x g 0; XGROUP DESTROY %x g",
    "GEOADD %g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania; GEODIST %g Palermo Catania km; GEODIST %g Palermo Nowhere; GEOHASH %g Palermo Nowhere; GEOPOS %g Palermo Nowhere; GEOSEARCH %g FROMLONLAT 15 37 BYRADIUS 200 km ASC WITHCOORD WITHDIST WITHHASH; GEORADIUS %g 15 37 200 km WITHDIST ASC; GEORADIUS %g 15 37 200 km STORE %h; GEORADIUS_RO %g 15 37 100 km; GEORADIUSBYMEMBER %g Palermo 10 km; GEOSEARCHSTORE %h %g FROMMEMBER Palermo BYBOX 400 400 km STOREDIST; ZRANGE %h 0 -1 WITHSCORES",
    "PFADD %p a b c; PFCOUNT %p; PFADD %q c d; PFMERGE %r %p %q; PFCOUNT %r; PFCOUNT %p %q; TYPE %r",
    "EVAL return{KEYS[1],ARGV[1],1,3.5,false,{'x'}} 1 %a v; EVAL return{ok='FINE'} 1 %a; EVAL return{err='MY_error'} 1 %a; EVAL return{double=3.5} 1 %a; EVAL nonsense( 1 %a; EVAL_RO return(redis.call('GET',KEYS[1])) 1 %a; EVAL return(redis.call('SET',KEYS[1],ARGV[1])) 1 %a v; EVAL_RO return(redis.call('SET',KEYS[1],1)) 1 %a; EVALSHA ffffffffffffffffffffffffffffffffffffffff 1 %a; EVAL redis.setresp(3)return(redis.call('HGETALL',KEYS[1])) 1 %h",
    "RPUSH %l 3 1 2; SORT %l; SORT %l DESC LIMIT 0 2; SORT %l ALPHA STORE %m; LRANGE %m 0 -1; SORT_RO %l; RPUSH %n x; SORT %n",
    "EXPIRE %a 100; SET %a v; EXPIRE %a 100 XX; EXPIRE %a 100 NX; EXPIRE %a 200 GT; PEXPIRE %a 1000000 LT; EXPIRE %a x; PEXPIREAT %a 1; GET %a; PTTL %a",
    "SET %a v; RESTORE %b 0 nonsense; LPUSH %a x; HGET %a f; SADD %a x; ZADD %a 1 x; XADD %a * f v; PFADD %a x; INCR %a; GETBIT %a -1; SETRANGE %a -1 x; GETRANGE %a x y; HINCRBY %h f x",
    "GET; GET %a %b; SET %a; HSET %a f; ZADD %z x a; LPOP %l x; SPOP %s -1; XADD %x nonsense f v; XRANGE %x bad bad; GEOADD %g 999 999 m; BITOP NOT %a %b %c; LMPOP 0 %a LEFT; ZUNION 0 %z; SINTERCARD 0 %s; EXPIRE %a; SETEX %a 0 v",
];

async fn run(client: &mut Client, script: &str, tag: &str) -> Vec<Bytes> {
    let mut replies = Vec::new();
    for command in script.replace('%', tag).split("; ") {
        let words: Vec<&str> = command.split(' ').collect();
        client.send(&wire(&words)).await.expect("the request is taken");
        replies.push(client.raw_reply().await.expect("a reply"));
    }
    replies
}

async fn connect(address: impl ToSocketAddrs, protocol: Protocol) -> Client {
    let mut client = Client::to(address).await;
    if protocol == Protocol::Resp3 {
        client.hello3().await.expect("the node has RESP3");
    }
    client
}

async fn check(protocol: Protocol) {
    let cluster = steady().await;
    let owners = cluster.owners().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut through = connect(proxy.data, protocol).await;
    for (n, script) in SCRIPTS.iter().enumerate() {
        let tag = format!("{{{protocol:?}{n}}}");
        let owner = cluster.address(owners[Slot::of(tag.as_bytes()).index()]);
        let mut direct = connect(owner, protocol).await;
        assert_eq!(direct.call("FLUSHALL").await, ok());
        let expected = run(&mut direct, script, &tag).await;
        assert_eq!(direct.call("FLUSHALL").await, ok());
        let replies = run(&mut through, script, &tag).await;
        for ((command, expected), reply) in script.split("; ").zip(expected).zip(replies) {
            let (expected, reply) = (expected.escape_ascii(), reply.escape_ascii());
            assert_eq!(reply.to_string(), expected.to_string(), "{command}");
        }
    }
    proxy.shutdown().await;
}

#[tokio::test]
async fn resp2_replies_are_those_of_the_owner() {
    check(Protocol::Resp2).await;
}

#[tokio::test]
async fn resp3_replies_are_those_of_the_owner() {
    check(Protocol::Resp3).await;
}
