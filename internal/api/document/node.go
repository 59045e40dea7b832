package document

import "github.com/goccy/go-yaml/ast"

// resolve takes anchors off and follows aliases; nil when an alias leads nowhere.
func (r *reader) resolve(n ast.Node) ast.Node {
	switch n := n.(type) {
	case *ast.AnchorNode:
		r.anchors[n.Name.GetToken().Value] = n.Value
		return r.resolve(n.Value)
	case *ast.AliasNode:
		v, ok := r.anchors[n.Value.GetToken().Value]
		if !ok {
			return nil
		}
		// Not resolved further: an alias inside its own anchor would never end.
		return v
	case *ast.MappingValueNode: // a mapping of one entry, in some positions
		return &ast.MappingNode{BaseNode: n.BaseNode, Start: n.Start, Values: []*ast.MappingValueNode{n}}
	}
	return n
}

// scalar is the text of a scalar, whatever YAML takes it for: a name may well be 12.
func (r *reader) scalar(n ast.Node) (string, bool) {
	switch n := r.resolve(n).(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode, *ast.MergeKeyNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func typeName(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "mapping"
	case *ast.SequenceNode:
		return "list"
	case *ast.TagNode:
		return "tagged value"
	case *ast.AliasNode:
		return "alias of an alias"
	}
	return "single value"
}
