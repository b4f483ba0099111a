%% Registrations of global names: the programs of names.lua on BEAM.  Prints name, tab, nanoseconds per operation.
-module(names).
-export([main/1]).

main(Others) ->
    Nodes = [list_to_atom(N) || N <- Others],
    [true = net_kernel:connect_node(N) || N <- Nodes],
    ok = global:sync(),
    wait(length(Nodes)),
    Count = length(Nodes) + 1,
    lists:foreach(fun(W) -> run(Count, W) end, [1, 64]),
    halt().

%% Waits until every node is connected to all others.
wait(N) ->
    case lists:all(fun(Node) -> length(rpc:call(Node, erlang, nodes, [])) >= N end, nodes()) of
        true -> [ok = rpc:call(Node, global, sync, []) || Node <- nodes()];
        false -> timer:sleep(10), wait(N)
    end.

scaled(N) -> case os:getenv("QUICK", "") of "" -> N; _ -> N div 10 end.

run(Count, Workers) ->
    Each = max(1, scaled(3000) div Workers),
    Me = self(),
    Ps = [spawn_link(fun() -> worker(Me, W, Each) end) || W <- lists:seq(1, Workers)],
    [receive {waiting, _} -> ok end || _ <- Ps],
    T = erlang:monotonic_time(nanosecond),
    [P ! go || P <- Ps],
    [receive {ready, _} -> ok end || _ <- lists:seq(1, Workers)],
    Time = erlang:monotonic_time(nanosecond) - T,
    [receive {gone, _} -> ok end || _ <- lists:seq(1, Workers)],
    io:format("~b nodes, ~b at a time\t~.1f~n", [Count, Workers, Time / (Each * Workers)]).

worker(Parent, W, Each) ->
    Names = [{{W, I}, spawn_link(fun() -> receive stop -> ok end end)} || I <- lists:seq(1, Each)],
    Parent ! {waiting, self()},
    receive go -> ok end,
    [yes = global:register_name(N, P) || {N, P} <- Names],
    Parent ! {ready, self()},
    [global:unregister_name(N) || {N, _} <- Names],
    Parent ! {gone, self()}.
