"""A bridge between ROS 2 topics and a sam4mllm node.

`convert` and `link` need no ROS: messages are anything with the fields of ROS's own. `node` is the part that does.
"""
