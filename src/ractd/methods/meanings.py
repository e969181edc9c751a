"""What the stages and the metrics of each method are called where people read them, and what rising or falling means."""

from __future__ import annotations

from ractd.training.meanings import Meaning

_Q = Meaning(
    "Mean Q", "Discounted returns that the critic expects. Growing far beyond the data's returns, it makes them up."
)
_Q_LOSS = Meaning(
    "Error of Q", "Squared, against its own moving target: it may rise while Q grows, and needn't fall to zero."
)

BC = {
    "bc": Meaning("Behaviour cloning", "One network learns to do what the data did."),
    "mse": Meaning("Error of the actions", "Squared. It falls until what is left is how much the data itself varies."),
    "loss": Meaning("Negative log-likelihood", "Falls as the data's actions become likely; below zero is fine."),
    "std": Meaning("Spread of the actions", "Falls towards how much the data's actions vary where it is the same."),
}

TD3_BC = {
    "td3_bc": Meaning("TD3+BC", "Q and the actor learn in turns."),
    "critic/loss": _Q_LOSS,
    "critic/q": _Q,
    "critic/target": Meaning("Mean target of Q", "Reward and the value after it. It should stay close to the mean Q."),
    "actor/loss": Meaning(
        "Loss of the actor", "Distance to the data's actions, less what Q promises. It needn't fall steadily."
    ),
    "actor/bc": Meaning(
        "Distance to the data's actions", "Squared. A rise says that Q pulls the actor away from the data."
    ),
    "actor/q": Meaning("Q of its own actions", "Should rise a little above the mean Q of the data's actions."),
    "actor/lambda": Meaning(
        "Weight of Q", "Falls as Q grows, so that the data's actions count alike throughout.", True
    ),
}

IQL = {
    "iql": Meaning("IQL", "V, the actor and Q learn in turns."),
    "value/loss": Meaning("Error of V", "Expectile loss against Q. It falls, and levels off above zero."),
    "value/v": Meaning("Mean V", "What the best actions in the data are expected to bring, discounted."),
    "value/advantage": Meaning(
        "Mean advantage", "Q above V. It settles below zero, since V looks at the better actions."
    ),
    "critic/loss": _Q_LOSS,
    "critic/q": _Q,
    "actor/loss": Meaning(
        "Loss of the actor", "Weighted negative log-likelihood: falls as the better actions become likely."
    ),
    "actor/weight": Meaning(
        "Mean weight of an action", "Large where few actions count for most of what is cloned.", True
    ),
    "actor/log_prob": Meaning(
        "Log-likelihood of the data's actions", "Rises; less than in cloning, which weights all alike."
    ),
}

RACTD = {
    "return": Meaning(
        "Return model", "Learns what logged behaviour was worth; it pays the student and ranks candidates."
    ),
    "dynamics": Meaning("Inverse dynamics", "Learns the action between two states, to turn a plan into actions."),
    "teacher": Meaning("Teacher", "A diffusion model learns the data's sequences; it samples slowly."),
    "plain": Meaning("Student without reward", "Learns to make the teacher's samples in one step."),
    "student": Meaning(
        "Student", "Does in one step what the data or its teacher does, and more of what is worth more."
    ),
    "loss": Meaning(
        "Total loss", "What the optimiser lowers. The changing weight of the reward makes a student's go up and down."
    ),
    "action_error": Meaning("Error of the actions", "Absolute, in actions scaled to [-1, 1]. It should fall."),
    "dsm": Meaning(
        "Denoising error",
        "Distance of denoised sequences from the data's. It levels off above zero; a later rise in a student is the reward's pull.",
    ),
    "noise": Meaning("Error of the noise", "Squared. It falls, and levels off above zero."),
    "ctm": Meaning(
        "Consistency with the teacher", "Distance of long jumps from the teacher's small steps. It should fall."
    ),
    "reward": Meaning(
        "Reward, negative", "Minus what the return model expects of its samples, standardised. Lower is better."
    ),
    "critic/loss": _Q_LOSS,
    "critic/q": _Q,
    "critic/left_data": Meaning(
        "Distance from the data", "Squared, of its next actions from logged ones. A rise costs Q.", True
    ),
    "bound": Meaning("Excess beyond the bounds", "How far actions leave the data's range. It should stay near zero."),
    "out_of_bounds": Meaning("Share out of bounds", "Of action entries. A working student has 0.02 to 0.03.", True),
    "estimated_return": Meaning(
        "Estimated return",
        "Of its samples, standardised by the data's. Higher is better, if the estimate is right.",
        True,
    ),
    "reward_weight": Meaning("Weight of the reward", "Fixed, or what keeps its gradient a share of the data's.", True),
    "data_gradient": Meaning("Gradient of the data term", "At its samples; the weight of the reward follows it.", True),
    "reward_gradient": Meaning(
        "Gradient of the reward", "At its samples. It vanishes where a sample has left the data.", True
    ),
    "reward_gradient_of_data": Meaning(
        "Gradient of the reward at the data",
        "Neither the data nor the critic change, so the running mean settles.",
        True,
    ),
}
