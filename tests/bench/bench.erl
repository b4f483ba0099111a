%% The programs of bench.lua on the BEAM.  Prints name, tab, nanoseconds per operation.  QUICK divides the work by ten.
-module(bench).
-behaviour(gen_server).
-export([main/0, calls/0, clients/0, calls_behind/0, matches_behind/0, to_all/0, timers/0, many_to_one/0, shares/0, spawns/0, long_list/0, overtaking/0, all_cores/0, beside_one/0, init/1, handle_call/3, handle_cast/2]).

main() ->
    ring(), spawns(), named(), idle(), pairs(), names(), calls(), clients(), calls_behind(),
    matches_behind(), to_all(), timers(), many_to_one(), shares(), stall(), beside(), long_list(), overtaking(), all_cores(), beside_one(), halt().

scaled(N) -> case os:getenv("QUICK", "") of "" -> N; _ -> N div 10 end.

say(Name, Value) -> io:format("~s\t~.1f~n", [Name, Value]).

time(Name, M, F) ->
    T = erlang:monotonic_time(nanosecond), F(),
    say(Name, (erlang:monotonic_time(nanosecond) - T) / M).

forward(Next) ->
    receive {What, N} -> Next ! {What, N - 1}, if N =< 0 -> ok; true -> forward(Next) end end.
first(Next, Who) ->
    receive {_, N} when N =< 0 -> Who ! done; {What, N} -> Next ! {What, N - 1}, first(Next, Who) end.
ring() ->
    Me = self(), M = scaled(1000000),
    Head = spawn(fun() -> receive {next, Next} -> first(Next, Me) end end),
    P = lists:foldl(fun(_, Next) -> spawn(fun() -> forward(Next) end) end, Head, lists:seq(2, 1000)),
    Head ! {next, P}, timer:sleep(50),
    time("ring", M, fun() -> P ! {token, M}, receive done -> ok end end).

spawns() ->
    Me = self(), M = scaled(300000),
    time("spawn, reply, exit", M, fun() -> spawns(M, Me) end).
spawns(0, _) -> ok;
spawns(I, Me) -> spawn(fun() -> Me ! I end), receive _ -> spawns(I - 1, Me) end.

named() ->
    Me = self(), M = scaled(300000),
    F = fun(Who, I) -> Who ! I end,
    time("spawn of a named function", M, fun() -> named(M, Me, F) end).
named(0, _, _) -> ok;
named(I, Me, F) -> spawn(erlang, apply, [F, [Me, I]]), receive _ -> named(I - 1, Me, F) end.

idle() ->
    M = scaled(1000000), Before = erlang:memory(total),
    T = erlang:monotonic_time(nanosecond),
    Ps = spawn_idle(M, []),
    say("spawn idle", (erlang:monotonic_time(nanosecond) - T) / M),
    say("idle, bytes", (erlang:memory(total) - Before) / M),
    lists:foreach(fun(P) -> P ! stop end, Ps), timer:sleep(2000).
spawn_idle(0, Ps) -> Ps;
spawn_idle(N, Ps) -> spawn_idle(N - 1, [spawn(fun() -> receive _ -> ok end end) | Ps]).

pong() -> receive {From, N} -> From ! N, if N =:= 0 -> ok; true -> pong() end end.
ping(_, -1) -> ok;
ping(Q, N) -> Q ! {self(), N}, receive _ -> ping(Q, N - 1) end.
pairs() ->
    Me = self(), M = scaled(20000),
    Ps = [spawn(fun() -> Q = spawn(fun pong/0), receive go -> ping(Q, M), Me ! done end end) || _ <- lists:seq(1, 100)],
    timer:sleep(50),
    time("100 pairs of ping-pong", 2 * 100 * M,
         fun() -> [P ! go || P <- Ps], [receive done -> ok end || _ <- Ps] end).

names() ->
    register(someone, self()), M = scaled(2000000),
    time("whereis", M, fun() -> names(M) end).
names(0) -> ok;
names(N) -> whereis(someone), names(N - 1).

stall() ->
    M = scaled(1000000), Ticks = scaled(5000),
    Me = self(),
    _ = [spawn(fun() -> Me ! 1, timer:sleep(1000000000) end) || _ <- lists:seq(1, M)],
    _ = [receive 1 -> ok end || _ <- lists:seq(1, M)],
    say("longest stall of a ticker", 1.0 * ticks(Ticks, 0)).
ticks(0, Worst) -> Worst;
ticks(N, Worst) ->
    T = erlang:monotonic_time(nanosecond), timer:sleep(1),
    ticks(N - 1, max(Worst, erlang:monotonic_time(nanosecond) - T - 1000000)).

spin() -> spin().
beside() ->
    Tries = scaled(500),
    Loops = [spawn(fun spin/0) || _ <- lists:seq(1, 20)],
    Took = lists:sort([begin T = erlang:monotonic_time(nanosecond), timer:sleep(1),
                             erlang:monotonic_time(nanosecond) - T - 1000000 end || _ <- lists:seq(1, Tries)]),
    say("wake beside 20 endless loops", 1.0 * lists:nth(Tries div 2 + 1, Took)),
    say("the same, 99th percentile", 1.0 * lists:nth(Tries * 99 div 100, Took)),
    [exit(P, kill) || P <- Loops].

init(_) -> {ok, none}.
handle_call(Request, _, State) -> {reply, Request, State}.
handle_cast(_, State) -> {noreply, State}.
echo() -> {ok, Pid} = gen_server:start(?MODULE, none, []), Pid.

repeat(0, _) -> ok;
repeat(N, F) -> F(N), repeat(N - 1, F).

calls() ->
    Pid = echo(), M = scaled(200000),
    time("server.call", M, fun() -> repeat(M, fun(I) -> gen_server:call(Pid, I) end) end).

clients() ->
    Pid = echo(), Me = self(), M = scaled(200),
    All = [spawn(fun() -> Me ! ready, receive go -> ok end,
                          repeat(M, fun(I) -> gen_server:call(Pid, I) end), Me ! done end) || _ <- lists:seq(1, 1000)],
    [receive ready -> ok end || _ <- All],
    time("server.call, 1,000 clients", 1000 * M,
         fun() -> [P ! go || P <- All], [receive done -> ok end || _ <- All] end).

%% In a process of its own, whose mailbox ends with it.
apart(F) -> {_, Ref} = spawn_monitor(F), receive {'DOWN', Ref, _, _, _} -> ok end.
fill_mailbox() -> repeat(100000, fun(I) -> self() ! {other, I} end).

calls_behind() ->
    Pid = echo(), M = scaled(20000),
    apart(fun() ->
        fill_mailbox(),
        time("server.call behind 100,000", M, fun() -> repeat(M, fun(I) -> gen_server:call(Pid, I) end) end) end).

matches_behind() ->
    M = scaled(200),
    apart(fun() ->
        fill_mailbox(),
        time("receive_match behind 100,000", M,
             fun() -> repeat(M, fun(I) -> self() ! {wanted, I}, receive {wanted, _} -> ok end end) end) end).

to_all() ->
    Me = self(), M = scaled(20),
    Pids = [spawn(fun() -> answer_all(Me) end) || _ <- lists:seq(1, 10000)],
    Lines = [iolist_to_binary([io_lib:format("~3..0w", [I]), lists:duplicate(97, $x)]) || I <- lists:seq(1, 100)],
    [begin
         Round = fun(Sent) ->
                     T = erlang:monotonic_time(nanosecond),
                     [P ! Message || P <- Pids],
                     Now = erlang:monotonic_time(nanosecond),
                     [receive _ -> ok end || _ <- Pids],
                     Sent + Now - T
                 end,
         T = erlang:monotonic_time(nanosecond),
         Sent = lists:foldl(fun(_, Sum) -> Round(Sum) end, 0, lists:seq(1, M)),
         say(Name, (erlang:monotonic_time(nanosecond) - T) / (10000 * M)),
         say(Name ++ ": sent", Sent / (10000 * M))
     end
     || {Name, Message} <- [{"10 KB to 10,000, a string", iolist_to_binary(Lines)},
                            {"10 KB to 10,000, a list", Lines}]],
    [exit(P, kill) || P <- Pids].
answer_all(Who) -> receive M when is_list(M) -> Who ! length(M); M -> Who ! size(M) end, answer_all(Who).

timers() ->
    M = scaled(200000), Me = self(),
    T = erlang:monotonic_time(nanosecond),
    Refs = [erlang:send_after(1000000000, Me, late) || _ <- lists:seq(1, M)],
    say("send_after", (erlang:monotonic_time(nanosecond) - T) / M),
    time("cancel_timer", M, fun() -> lists:foreach(fun(R) -> erlang:cancel_timer(R) end, Refs) end).

many_to_one() ->
    Me = self(), M = scaled(20),
    All = [spawn(fun() -> receive go -> ok end, repeat(M, fun(K) -> Me ! {I, K} end) end) || I <- lists:seq(1, 10000)],
    time("10,000 to one mailbox", 10000 * M,
         fun() -> [P ! go || P <- All], repeat(10000 * M, fun(_) -> receive _ -> ok end end) end).

long_list() ->
    List = lists:seq(1, scaled(1000000)),
    Other = spawn(fun answer/0),
    time("a list of 1 M integers", 30, fun() -> long_list(30, Other, List) end).
long_list(0, _, _) -> ok;
long_list(N, Other, List) -> Other ! {self(), List, 1}, receive _ -> long_list(N - 1, Other, List) end.
answer() -> receive {From, _, Last} -> From ! Last, answer() end.

shares() ->
    M = scaled(10000) * 1000000, Me = self(),
    Pids = [spawn(fun() -> receive Stop -> count(Me, Stop, 0) end end) || _ <- lists:seq(1, 1000)],
    Stop = erlang:monotonic_time(nanosecond) + M,
    [P ! Stop || P <- Pids],
    Counts = [receive {counted, N} -> N end || _ <- lists:seq(1, 1000)],
    Mean = lists:sum(Counts) / 1000,
    say("least of 1,000 counters, %", lists:min(Counts) / Mean * 100),
    say("most of 1,000 counters, %", lists:max(Counts) / Mean * 100).
count(Who, Stop, N) ->
    case erlang:monotonic_time(nanosecond) < Stop of true -> count(Who, Stop, N + 1); false -> Who ! {counted, N} end.

%% Without a counterpart of send_urgent: priority messages came with OTP 28.
overtaking() ->
    P = spawn(fun() -> receive urgent -> ok end end),
    repeat(scaled(1000000), fun(I) -> P ! {other, I} end),
    timer:sleep(2000),
    Ref = monitor(process, P),
    T = erlang:monotonic_time(nanosecond),
    exit(P, kill),
    receive {'DOWN', Ref, _, _, _} -> ok end,
    say("kill past 1 M", 1.0 * (erlang:monotonic_time(nanosecond) - T)).

all_cores() ->
    Loops = [begin P = spawn(fun spin/0), timer:sleep(1), P end || _ <- lists:seq(1, 16)],
    {Cpu, _} = statistics(runtime), T = erlang:monotonic_time(nanosecond),
    timer:sleep(scaled(3000)),
    {Now, _} = statistics(runtime),
    say("cores used by 16 loops, %",
        (Now - Cpu) * 1.0e8 / (erlang:monotonic_time(nanosecond) - T) / erlang:system_info(schedulers_online)),
    [exit(P, kill) || P <- Loops].

beside_one() ->
    P = spawn(fun spin/0),
    say("worst wake beside one loop", 1.0 * ticks(scaled(3000), 0)),
    exit(P, kill).
