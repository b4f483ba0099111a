%% The programs of link.lua between two nodes of BEAM.  Prints name, tab, nanoseconds per operation.
-module(link).
-export([main/1, echo/0, drain/0, group/2]).

main([Other]) ->
    Node = list_to_atom(Other),
    true = net_kernel:connect_node(Node),
    pingpong(Node), stream(Node, 100, 300000), stream(Node, 10000, 30000), spawns(Node),
    spawns_at_once(Node), group(Node), halt().

scaled(N) -> case os:getenv("QUICK", "") of "" -> N; _ -> N div 10 end.

say(Name, Value) -> io:format("~s\t~.1f~n", [Name, Value]).

time(Name, M, F) ->
    T = erlang:monotonic_time(nanosecond), F(),
    say(Name, (erlang:monotonic_time(nanosecond) - T) / M).

echo() -> receive {From, N} -> From ! N, echo() end.
pingpong(Node) ->
    M = scaled(20000), P = spawn(Node, ?MODULE, echo, []),
    time("ping-pong of two nodes", M, fun() -> pings(P, M) end), exit(P, kill).
pings(_, 0) -> ok;
pings(P, N) -> P ! {self(), N}, receive N -> pings(P, N - 1) end.

drain() -> receive From when is_pid(From) -> From ! ok; _ -> drain() end.
stream(Node, Size, N) ->
    M = scaled(N), P = spawn(Node, ?MODULE, drain, []),
    B = binary:copy(<<"x">>, Size),
    time(io_lib:format("one-way of ~b bytes", [Size]), M,
         fun() -> pour(P, B, M), P ! self(), receive ok -> ok end end).
pour(_, _, 0) -> ok;
pour(P, B, N) -> P ! B, pour(P, B, N - 1).

spawns(Node) ->
    M = scaled(10000), Me = self(),
    time("spawn there and hear back", M, fun() -> spawns(Node, Me, M) end).
spawns(_, _, 0) -> ok;
spawns(Node, Me, N) -> spawn(Node, fun() -> Me ! N end), receive N -> spawns(Node, Me, N - 1) end.

spawns_at_once(Node) ->
    Each = scaled(10000) div 64, Me = self(),
    time("the same, 64 at once", Each * 64, fun() ->
        [spawn(fun() -> spawns(Node, self(), Each), Me ! done end) || _ <- lists:seq(1, 64)],
        [receive done -> ok end || _ <- lists:seq(1, 64)]
    end).

group(Node) ->
    Size = 10000, M = scaled(40), spawn(Node, ?MODULE, group, [self(), Size]),
    Pids = receive L -> L end,
    time("message to 10,000 members", M, fun() ->
        [begin [P ! I || P <- Pids], receive I -> ok end end || I <- lists:seq(1, M)]
    end),
    [exit(P, kill) || P <- Pids].
group(From, Size) -> From ! [spawn(fun() -> member(From, I =:= Size) end) || I <- lists:seq(1, Size)].
member(From, Answers) -> receive M when Answers -> From ! M; _ -> ok end, member(From, Answers).
