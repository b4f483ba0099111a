# fish completion for node-toolkit: node-attach node-connect node-cookie node-kill node-list node-monitor node-ping node-ps
# node-receive node-register node-send node-shell node-spawn node-start node-stop node-whereis.  fish loads this file by
# links that have the names of the tools, and the name of the link says which tool to complete.
#
# Options are read from -h of the tool, and names of nodes and processes from the running nodes.

set -l tool (status basename | string replace -r '\.fish$' '')

# Prints the nodes that run here: each has a directory with a socket.
function __node_toolkit_local
    set -l user (id -u)
    set -l directory /tmp/node-$user
    test -O /run/user/$user; and set directory /run/user/$user/node
    set -q XDG_RUNTIME_DIR[1]; and test -n "$XDG_RUNTIME_DIR"; and set directory $XDG_RUNTIME_DIR/node
    test $user = 0 -o -O /run/node; and set directory /run/node
    set -q NODE_RUNTIME_DIR[1]; and test -n "$NODE_RUNTIME_DIR"; and set directory $NODE_RUNTIME_DIR
    for socket in $directory/*@*/sock
        string replace -r '.*/([^/]+)/sock$' '$1' -- $socket
    end
end

function __node_toolkit_nodes
    node-list --known --timeout 1 2>/dev/null
    __node_toolkit_local
end

# Prints the tags of the living members, with and without their values.
function __node_toolkit_tags
    node-list --all --json --timeout 1 2>/dev/null | string match -rg '"tags":\{([^}]*)\}' | string split , |
        string replace -r '^"([^"]*)":"([^"]*)"$' '$1\n$1=$2' | string replace -ar '=$' ''
end

function __node_toolkit_names
    begin
        node-whereis --timeout 1 2>/dev/null
        node-whereis --local --timeout 1 2>/dev/null
    end | string replace -r ' .*' ''
end

function __node_toolkit_pids
    node-ps --timeout 1 2>/dev/null | string replace -rf '^<(\S*)>.*' '$1'
end

set -l form '^  (-(?<letter>.),|   ) --(?<name>[a-z-]+)( (?<argument>\S+))?  +(?<help>.*)$'
for line in ($tool -h 2>/dev/null)
    string match -rq -- $form $line; or continue
    set -l option -l $name -d $help
    test -n "$letter"; and set -a option -s $letter
    switch "$argument"
        case NODE
            set -a option -x -a '(__node_toolkit_local)'
        case TAG
            set -a option -x -a '(__node_toolkit_tags)'
        case BOUND=VALUE
            set -a option -x -a "$(node-start -h 2>/dev/null | sed -n '1,/^Bounds/d; s/^  \([a-z-]*\) .*/\1=/p' | string join ' ')"
        case SIG
            set -a option -x -a "list $(node-kill -s list 2>/dev/null | string replace -r '.* ' '' | string join ' ')"
        case USER
            set -a option -x -a '(__fish_complete_users)'
        case FILE
            set -a option -r -F
        case DIR
            set -a option -x -a '(__fish_complete_directories)'
        case '*|*'
            set -a option -x -a "$(string replace -a '|' ' ' -- $argument)"
        case '?*'
            set -a option -x
    end
    complete -c $tool $option
end

switch $tool
    case node-connect node-ping node-ps node-shell
        complete -c $tool -f -a '(__node_toolkit_nodes)'
    case node-cookie
        complete -c $tool -f -n 'not __fish_seen_subcommand_from add' -a 'add make promote reload retire show'
    case node-stop
        complete -c $tool -f -a '(__node_toolkit_local)'
    case node-whereis
        complete -c $tool -f -a '(__node_toolkit_names)'
    case node-send node-kill node-monitor node-attach
        complete -c $tool -f -a '(__node_toolkit_names)'
        complete -c $tool -f -a '(__node_toolkit_pids)'
    case node-register
        complete -c $tool -f -a '(__node_toolkit_pids)'
    case node-pipe
        complete -c $tool -f -a '(__node_toolkit_nodes | string replace -r "\$" :)'
    case node-copy
        complete -c $tool -a '(__node_toolkit_nodes | string replace -r "\$" :)'
    case node-spawn
        complete -c $tool -f -n 'not contains -- -- (commandline -opc)' -a '(__node_toolkit_nodes)'
        complete -c $tool -n 'contains -- -- (commandline -opc)' -a '(__fish_complete_subcommand)'
    case '*'
        complete -c $tool -f
end
