# fish completion for node-toolkit: node-attach node-connect node-cookie node-copy node-kill node-list node-monitor
# node-ping node-pipe node-ps node-receive node-register node-send node-shell node-spawn node-start node-stop node-top
# node-whereis.
# fish loads this file by links that have the names of the tools, and the name of the link says which tool to complete.
#
# The tool itself says what can stand at the cursor (cmd/complete.h), in one call; this file only shows it.

function __node_toolkit
    set -l tool $argv[1]
    set -l words (commandline -opc)
    set -l at (contains -i -- $tool (string replace -r '.*/' '' -- $words)); or return
    set -l words $words[$at..-1]
    set -l raw (commandline -ct)
    # The word may end within quotes, which are then closed.
    set -l word (string unescape -- "$raw" || string unescape -- "$raw'" || string unescape -- "$raw\"" || echo -- "$raw")
    set -l front (string match -r -- '^--[a-z-]+=' $word)
    set -l value (string replace -r -- '^--[a-z-]+=' '' "$word")
    for line in ($words[1] --complete $words[2..-1] "$word" 2>/dev/null)
        switch $line
            case files
                printf "%s\n" "$front"(__fish_complete_path $value)
            case directories
                printf "%s\n" "$front"(__fish_complete_directories $value)
            case users
                printf "%s\n" "$front"(__fish_complete_users)
            case 'command *'
                set -l from (math 1 + (string replace 'command ' '' -- $line))
                set -l begun (string escape -- $words[$from..-1])
                complete -C "$(string join ' ' -- $begun $raw)"
            case '*'
                printf '%s\n' $line
        end
    end
end

set -l tool (status basename | string replace -r '\.fish$' '')
complete -c $tool -f -a "(__node_toolkit $tool)"
