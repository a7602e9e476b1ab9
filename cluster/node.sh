# Sourced by login shells of the image, and so by its entry point and by every command of Ray's launcher: exports what
# ~/.prompt-corrector.env (the user's) and node.env (every node's) say. What is set already is kept; the user's file comes first.
PATH=/opt/venv/bin:$PATH
for file in "$HOME/.prompt-corrector.env" /app/cluster/node.env; do
    [ -r "$file" ] || continue
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            '#'*) ;;
            *=*) printenv "${line%%=*}" > /dev/null || export "${line%%=*}=${line#*=}" ;;
        esac
    done < "$file"
done
unset file line
