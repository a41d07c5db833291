"""ros2 launch sam4mllm_bridge bridge.launch.py node:=127.0.0.1:50051 image:=/camera/image_raw"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

# Name, default, meaning, type; each is a parameter of the node under the same name.
PARAMETERS = [
    ("node", "127.0.0.1:50051", "the sam4mllm node, host:port or unix:/path", str),
    ("token_file", "", "a file with the node's bearer token", str),
    ("ca_file", "", "PEM of the authority of the node's certificate; with it the connection is TLS", str),
    ("certificate_file", "", "PEM of the bridge's own certificate, where the node asks for one", str),
    ("key_file", "", "PEM of its key", str),
    ("image", "image", "sensor_msgs/Image; with compressed, what stands before /compressed", str),
    ("compressed", "false", "read sensor_msgs/CompressedImage from image/compressed", bool),
    ("camera_info", "", "sensor_msgs/CameraInfo; empty for camera_info beside the image", str),
    ("depth", "", "sensor_msgs/Image of depth, registered to the image; empty for none", str),
    ("labels", "false", "number the instances in the mask instead of 255 for all", bool),
    ("command", "", "what to look for until a command comes", str),
]


def generate_launch_description():
    arguments = [
        DeclareLaunchArgument("name", default_value="sam4mllm_bridge", description="name of the ROS node"),
        DeclareLaunchArgument("namespace", default_value="", description="its namespace"),
        *(DeclareLaunchArgument(n, default_value=d, description=m) for n, d, m, _ in PARAMETERS),
    ]
    # With the type said: "7" as a command is a word, not a number.
    values = {n: ParameterValue(LaunchConfiguration(n), value_type=t) for n, _, _, t in PARAMETERS}
    bridge = Node(
        package="sam4mllm_bridge",
        executable="bridge",
        name=LaunchConfiguration("name"),
        namespace=LaunchConfiguration("namespace"),
        parameters=[values],
        output="screen",
        respawn=True,
        respawn_delay=2.0,
    )
    return LaunchDescription([*arguments, bridge])
